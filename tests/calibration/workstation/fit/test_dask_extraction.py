"""A fit on a Dask cluster is that of one machine; what is wrong with the cluster is said, and nothing is left."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from distributed import Client, LocalCluster

from calibration.bundle.bundle import MOMENTS, NETWORK, REFERENCE, open_bundle
from calibration.bundle.golden_frames import GoldenSample, golden_indices
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.errors import ClusterError, DatasetError, DegenerateFeaturesError, SettingError, ShiftwatchError
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.dataset import good_images
from calibration.workstation.fit import dask_client
from calibration.workstation.fit.dask_client import PRIVATE, Cluster, connected
from calibration.workstation.fit.dask_extraction import ClusterExtractor
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.calibration.update.test_merge import assert_same_statistics
from tests.support.outcome import assert_refused
from tests.support.photographed import save_photographed
from tests.support.washers import SIDE, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector
    from tests.support.outcome import Outcome

SETTINGS = Settings(Preprocess(SIDE, SIDE), threads=1, false_reject_rate=0.02)


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def client(process_locks: None) -> Iterator[Client]:
    """Of a cluster of two processes; starting it takes seconds, so there is one for all tests."""
    del process_locks
    with connected("local:2") as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Washers, two of them not readable."""
    folder = save(tmp_path_factory.mktemp("pictures") / "good", [washer(number) for number in range(40)])
    (folder / "003.png").write_bytes(b"damaged")
    (folder / "017.png").write_bytes(b"")
    return folder


@contextmanager
def threads(number: int) -> Iterator[tuple[LocalCluster, Client]]:
    """A cluster of so many threads of this process."""
    with (
        LocalCluster(n_workers=min(number, 1), threads_per_worker=number or 1, processes=False, **PRIVATE) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


class Fit:
    """Calibrates into a folder of its own, on a cluster or here."""

    def __init__(self, backbone: Backbone, folder: Path, pictures: Path) -> None:
        self.folder = folder
        self._backbone = backbone
        self._pictures = pictures

    def __call__(
        self,
        client: Client | None,
        name: str = "bundle",
        settings: Settings = SETTINGS,
        progress: Callable[[str, int, int], None] = quiet,
    ) -> Bundle:
        images, path = good_images(self._pictures), self.folder / name
        if client is None:
            return calibrate(images, self._backbone, settings, path, progress)
        return calibrate(images, self._backbone, settings, path, progress, ClusterExtractor(Cluster(client)))


@pytest.fixture
def fit(small_filterbank: Backbone, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    monkeypatch.setattr("calibration.workstation.fit.dask_extraction._LEAST_IMAGES", 4)  # parts enough for sums of sums
    return Fit(small_filterbank, tmp_path / "out", folder)


def assert_same_reference(one: Bundle, other: Bundle) -> None:
    ours, theirs = one.reference(), other.reference()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-9)
        else:
            np.testing.assert_array_equal(ours[name], array)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "augment"),
    [(MeanShift(), 0), (MeanShift(location="shared"), 0), (Padim(20), 0), (Gaussian(), 0), (MeanShift(alpha=0.3), 2)],
    ids=["mean_shift", "shared", "padim", "gaussian", "copies"],
)
def test_the_bundle_is_that_of_one_machine(client: Client, fit: Fit, detector: Detector, augment: int) -> None:
    settings = replace(SETTINGS, detector=detector, augment=augment)
    clustered, alone = fit(client, "clustered", settings), fit(None, "alone", settings)
    if alone.moments():
        assert_same_statistics(clustered, alone)
    assert_same_reference(clustered, alone)
    changes: dict[str, Any] = {"created_at": "", "files": {}, "working_point": None}
    assert clustered.manifest.model_copy(update=changes) == alone.manifest.model_copy(update=changes)
    assert clustered.manifest.images.count == 38
    assert [name.split("/")[-1].split()[0] for name in alone.manifest.images.skipped] == ["003.png", "017.png"]
    points = clustered.manifest.working_point, alone.manifest.working_point
    assert points[0].threshold == pytest.approx(points[1].threshold, rel=1e-5)
    assert points[0].folds == points[1].folds


@pytest.mark.slow
def test_near_copies_are_found_as_on_one_machine(client: Client, fit: Fit, tmp_path: Path) -> None:
    fit = Fit(fit._backbone, tmp_path / "again", save_photographed(tmp_path / "parts", 0, 12, 3))
    clustered, alone = (fit(each, name) for each, name in ((client, "clustered"), (None, "alone")))
    (ours,), (theirs,) = clustered.manifest.images.findings, alone.manifest.images.findings
    assert clustered.working_point.parts == alone.working_point.parts == 12
    assert ours.images == theirs.images


@pytest.mark.slow
def test_any_cluster_gives_the_same_bytes(client: Client, fit: Fit) -> None:
    steps: list[tuple[str, int, int]] = []
    one = fit(client, "one", progress=lambda *step: steps.append(step))
    with threads(3) as (_, alone):
        other = fit(alone, "other")
    assert {name: one.manifest.files[name] for name in (NETWORK, MOMENTS, REFERENCE)} == dict(other.manifest.files)
    assert [done for step, done, _ in steps if step == "learning"][-1] == 38
    assert [step[1] for step in steps if step[0] == "validating"] == [1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["learning", "validating"])
def test_a_worker_that_is_killed_costs_nothing_but_time(client: Client, fit: Fit, step: str) -> None:
    killed: list[int] = []

    def kill(now: str, *_: int) -> None:
        if now == step and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    clustered = fit(client, "clustered", progress=kill)
    assert killed
    assert_same_reference(clustered, fit(None, "alone"))
    client.wait_for_workers(2, timeout=60)


def test_an_error_on_a_worker_is_raised_as_it_is_here(client: Client, fit: Fit) -> None:
    settings = replace(SETTINGS, preprocess=Preprocess(SIDE, SIDE, Region(0, 0, 64, 90)))
    with pytest.raises(DatasetError, match=r"000\.png: region of interest 0,0,64,90 .* 64x64"):
        fit(client, settings=settings)
    assert not fit.folder.exists()


@pytest.mark.slow
def test_copies_of_one_image_are_refused(client: Client, small_filterbank: Backbone, tmp_path: Path) -> None:
    pictures = save(tmp_path / "same", [washer(0)] * 12)
    with pytest.raises(DegenerateFeaturesError, match="features of all images are the same"):
        Fit(small_filterbank, tmp_path / "out", pictures)(client)


def test_a_worker_that_sees_other_images_is_named(client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"here")
    with picture.open("rb") as file:
        seen_here_alone = type(picture)(f"/proc/self/fd/{os.dup2(file.fileno(), 200)}")
        try:
            with pytest.raises(ClusterError, match=r"see other files: tcp://127.*does not see /proc/self/fd"):
                Cluster(client).refuse_unfit([seen_here_alone])
        finally:
            os.close(200)


def test_a_worker_with_other_software_is_named(client: Client, fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "__version__", "0.1")
    with pytest.raises(ClusterError, match=r"tcp://127.* has onnxruntime 1\.[\d.]+, here is 0\.1") as error:
        fit(client)
    assert "install the same versions" in error.value.remedy


def close(cluster: LocalCluster, *_: object) -> None:
    cluster.close()


def test_a_cluster_that_is_lost_is_reported_and_leaves_nothing(fit: Fit) -> None:
    with threads(1) as (cluster, client), pytest.raises(ClusterError, match="nothing was written"):
        fit(client, progress=partial(close, cluster))
    assert not fit.folder.exists()


def test_a_cluster_without_workers_is_not_waited_for_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_client, "_POLL_S", 0.1)
    with threads(0) as (_, client):
        impatient = Cluster(client, patience_s=0.1)
        with pytest.raises(ClusterError, match="cluster"):
            impatient.refuse_unfit(sorted(folder.iterdir()))
        with pytest.raises(ClusterError, match=r"has had no worker for 0 s; nothing was written"):
            impatient.result(impatient.submit(len, "abc"))


def test_an_address_where_no_scheduler_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_client, "_CONNECT_S", 0.3)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        connected("tcp://127.0.0.1:1").__enter__()


@pytest.mark.parametrize("address", ["local:0", "local:two", "local:-1"])
def test_a_senseless_number_of_workers_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match=address):
        connected(address).__enter__()


def test_a_machine_whose_processes_share_no_locks_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.Lock", refused)
    with pytest.raises(ClusterError, match=r"processes cannot share locks .*: \[Errno 30\] Read-only") as caught:
        connected("local:1").__enter__()
    assert "dask worker --no-nanny" in caught.value.remedy


@pytest.mark.slow
def test_the_command_uses_a_cluster_that_runs(
    client: Client, command: Callable[..., Outcome], folder: Path, data: Path, tmp_path: Path
) -> None:
    assert client.scheduler is not None
    address = client.scheduler.address
    outcome = command("fit", folder, "--size", SIDE, "--out", tmp_path / "b", "--dask", address)
    assert outcome.code == 0
    assert open_bundle(tmp_path / "b").manifest.images.count == 38
    video = data / "conveyor/bolt-multi-size-detection.gif"
    refused = command("fit", video, "--size", SIDE, "--out", tmp_path / "v", "--dask", address)
    assert_refused(refused, "is a video", "leave out --dask")
    refused = command("fit", folder, "--out", tmp_path / "p", "--dask", address, "--detector", "patch_svdd")
    assert_refused(refused, "--dask does not apply", "leave out")


@pytest.mark.slow
def test_without_the_option_dask_is_not_imported() -> None:
    imports = "import sys, agent.cli, calibration.workstation.cli.main"
    code = f"{imports}; sys.exit(bool({{'dask', 'distributed'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_golden_frames_are_known_before_they_are_read(count: int) -> None:
    sample = GoldenSample()
    for index in range(count):
        one: Any = index
        sample.offer(one, one)
    assert list(sample.frames) == golden_indices(count)


@pytest.mark.slow
def test_errors_survive_the_way_to_another_process() -> None:
    for kind in (ShiftwatchError, DatasetError, ClusterError):
        again = pickle.loads(pickle.dumps(kind(what="this", remedy="do that")))  # noqa: S301 - our own bytes
        assert (type(again), again.what, again.remedy, str(again)) == (kind, "this", "do that", "this\n  do that")
