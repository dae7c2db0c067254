"""Opening a bundle reveals any damage, and writing is all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.bundle.bundle import (
    MANIFEST,
    MOMENTS,
    NETWORK,
    REFERENCE,
    SEAL,
    Bundle,
    GoldenCheck,
    check_golden,
    npz_bytes,
    open_bundle,
    refuse_existing,
    seal,
    write_bundle,
)
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError, ScoreMismatchError, StorageError
from calibration.statistics.moments import Moments

if TYPE_CHECKING:
    from pathlib import Path

FILES = (NETWORK, MOMENTS, REFERENCE)


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def change_manifest(bundle: Bundle, **changes: object) -> None:
    path = bundle.path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (bundle.path / SEAL).write_bytes(seal(path.read_bytes()))


def replace(bundle: Bundle, name: str, content: bytes) -> None:
    """Replace a file and its hash in the manifest."""
    (bundle.path / name).write_bytes(content)
    change_manifest(bundle, files={**bundle.manifest.files, name: hashlib.sha256(content).hexdigest()})


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in FILES}


def test_a_bundle_opens_as_it_was_written(learnt: Bundle) -> None:
    again = open_bundle(learnt.path)
    assert again == learnt
    assert {path.name for path in learnt.path.iterdir()} == {MANIFEST, SEAL, *FILES}
    assert again.identity == hashlib.sha256((learnt.path / MANIFEST).read_bytes()).hexdigest()


def test_the_manifest_lists_the_hash_of_every_other_file(learnt: Bundle) -> None:
    assert learnt.manifest.files == {
        name: hashlib.sha256(content).hexdigest() for name, content in files_of(learnt).items()
    }


def test_a_bundle_written_again_elsewhere_has_the_same_identity(learnt: Bundle, tmp_path: Path) -> None:
    assert write_bundle(tmp_path / "copy", learnt.manifest, files_of(learnt)).identity == learnt.identity


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9999])
def test_one_flipped_bit_is_noticed_and_the_file_named(bundle: Bundle, name: str, share: float) -> None:
    flip(bundle.path / name, int(share * (bundle.path / name).stat().st_size), bit=int(share * 8) % 8)
    with pytest.raises(BundleError, match=f"{name} is not what calibration wrote"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_longer_file_is_noticed(bundle: Bundle, name: str) -> None:
    content = (bundle.path / name).read_bytes()
    for changed in (content[:-1], content + b"\0", b""):
        (bundle.path / name).write_bytes(changed)
        with pytest.raises(BundleError, match=name):
            open_bundle(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, SEAL])
def test_a_manifest_or_its_hash_with_a_bit_changed_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        flip(path, place, bit=place % 8)
        with pytest.raises(BundleError):
            open_bundle(bundle.path)
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"schema_version": 1}'])
def test_an_invalid_manifest_is_refused(bundle: Bundle, content: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        open_bundle(bundle.path)


def test_a_newer_bundle_asks_for_an_update(bundle: Bundle) -> None:
    change_manifest(bundle, schema_version=2, something_new=True)
    with pytest.raises(BundleError, match=r"schema 2.*\n.*update shiftwatch"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, SEAL, *FILES])
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"cannot read .*{name}"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_that_does_not_list_a_file_is_refused(bundle: Bundle, name: str) -> None:
    change_manifest(bundle, files={other: digest for other, digest in bundle.manifest.files.items() if other != name})
    with pytest.raises(BundleError, match=f"does not list {name}"):
        open_bundle(bundle.path)


def test_a_folder_that_is_not_a_bundle_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match=r"(?s)cannot read.*fit"):
            open_bundle(path)


def test_golden_frames_score_as_calibrated(learnt: Bundle) -> None:
    with OnnxRuntimeEngine(learnt.network, 1) as engine:
        checks = check_golden(learnt, engine)
    assert len(checks) == 4
    assert max(check.deviation for check in checks) < 1e-4
    assert checks[-1].expected > learnt.manifest.working_point.threshold


@pytest.mark.parametrize("factor", [1.01, 0.99, float("nan")])
def test_a_score_other_than_the_calibrated_one_is_refused(bundle: Bundle, factor: float) -> None:
    arrays = bundle.reference()
    arrays["golden_scores"][2] *= factor
    replace(bundle, REFERENCE, npz_bytes(arrays))
    reopened = open_bundle(bundle.path)
    with (
        OnnxRuntimeEngine(reopened.network, 1) as engine,
        pytest.raises(ScoreMismatchError, match="golden frame 2"),
    ):
        check_golden(reopened, engine)


def test_an_engine_that_returns_nan_is_refused(learnt: Bundle) -> None:
    class Broken(OnnxRuntimeEngine):
        def _run(self, outputs: list[str] | None, frame: Any) -> list[Any]:  # noqa: ANN401 - as the engine has it
            return [np.full_like(each, np.nan) for each in super()._run(outputs, frame)]

    with Broken(learnt.network, 1) as engine, pytest.raises(ScoreMismatchError, match="golden frame 0 nan"):
        check_golden(learnt, engine)


def test_nothing_in_a_bundle_needs_pickle(learnt: Bundle) -> None:
    for name in (MOMENTS, REFERENCE):
        with np.load(learnt.path / name, allow_pickle=False) as archive:
            assert all(archive[key].dtype != object for key in archive.files)
    assert set(learnt.moments()) == {"count", "squares", "mean", "scatter"}
    assert {"golden_frames", "golden_scores", "good_scores", "brightness", "sharpness"} <= set(learnt.reference())


def test_a_device_can_add_to_the_moments(learnt: Bundle) -> None:
    moments = Moments.unpacked(learnt.moments())
    assert moments.count == learnt.manifest.images.count == 24
    moments.add(Moments.unpacked(learnt.moments()))
    assert moments.count == 48


@pytest.mark.parametrize("kind", ["folder", "file", "bundle"])
def test_an_existing_path_is_never_overwritten(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    path = {"folder": tmp_path / "there", "file": tmp_path / "there", "bundle": bundle.path}[kind]
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda: refuse_existing(path), lambda: write_bundle(path, bundle.manifest, files_of(bundle))):
        with pytest.raises(BundleError, match="already exists"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("failing", range(7))
@pytest.mark.parametrize(
    "reason", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_an_interrupted_write_leaves_nothing(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, reason: BaseException
) -> None:
    """Each of the seven flushes fails in turn: five files and the folder, and the parent folder after the rename."""
    flushed = 0

    def fsync(_descriptor: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed == failing + 1:
            raise reason

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((StorageError, KeyboardInterrupt), match=r"No space left|^$"):
        write_bundle(tmp_path / "bundle", learnt.manifest, files_of(learnt))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == (set() if failing < 6 else {"bundle"})


def test_a_path_that_cannot_be_written_is_a_storage_error(learnt: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write the bundle"):
        write_bundle(tmp_path / "file" / "bundle", learnt.manifest, files_of(learnt))


def test_scores_far_below_the_threshold_are_compared_on_its_scale() -> None:
    assert GoldenCheck(4.52e-06, 4.47e-06, threshold=1.0).deviation < 1e-5
    assert GoldenCheck(4.52e-06, 4.47e-06).deviation > 1e-2
    assert GoldenCheck(1.0, 1.002, threshold=1.0).deviation == pytest.approx(2e-3)
