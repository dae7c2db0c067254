"""A swap on a device whose engines take minutes to make and belong to the thread that loaded them."""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.audit.log import AuditLog
from agent.commands.bundle_swap import BundleSwap, SwapReason
from agent.config.model import load
from agent.station.bundle_loader import BundleLoader
from calibration.bundle.bundle import open_bundle
from calibration.deployment.backends import BACKENDS, Backend, Deployment, choose_backend
from calibration.deployment.engine_source import engine_folder
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt_cache import RECORD, Cached
from calibration.engine.tensorrt_kept import KeptEngine
from calibration.errors import EngineError
from calibration.network.fusion import without_head
from calibration.progress import silent
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle
from tests.support import fake_pycuda, fake_tensorrt
from tests.support.fake_gpu import ORIN, FakeCuda
from tests.support.stations import Taught, strided_backbone, teach, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.zones.zone import Zone
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Inference
    from calibration.errors import ShiftwatchError
    from calibration.imaging.preprocess import Image

REASON = SwapReason("rolled back", "command-1", None)
PATIENCE_S = 20.0


@dataclass
class Builds:
    """Which thread built what, and a gate that a build waits at."""

    threads: list[str] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    fails: bool = False

    def build(self, deployment: Deployment) -> None:
        if not deployment.may_build:
            raise EngineError(what="no engine is ready", remedy="build it")
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        assert self.gate.wait(PATIENCE_S)
        if self.fails or (deployment.cancel is not None and deployment.cancel.is_set()):
            raise EngineError(what="the engine cannot be built", remedy="free memory")
        deployment.folder("tensorrt").mkdir(exist_ok=True)
        (deployment.folder("tensorrt") / "built").touch()


class SlowToBuild(OnnxRuntimeEngine):
    """An engine that is built once, and used by the thread that loaded it alone."""

    backend = "tensorrt"

    def __init__(self, builds: Builds, deployment: Deployment) -> None:
        super().__init__(deployment.bundle.network, 1)
        self._builds, self._deployment = builds, deployment

    def __enter__(self) -> Any:  # noqa: ANN401 - itself
        if not (self._deployment.folder("tensorrt") / "built").exists():
            self._builds.build(self._deployment)
        self._owner = threading.get_ident()
        return super().__enter__()

    def __call__(self, frame: Image) -> Inference:
        assert threading.get_ident() == self._owner, "used by another thread"
        return super().__call__(frame)


@dataclass
class Device:
    """A zone on a device with TensorRT, another bundle for it, and the swap under test."""

    zone: Zone
    other: Bundle
    swap: BundleSwap
    builds: Builds
    cancel: threading.Event
    ended: list[ShiftwatchError | None] = field(default_factory=list)

    def activate(self) -> threading.Thread:
        """Activate the other bundle, as a rollback or a recalibration does: from a thread of its own."""
        self.swap.reserve()
        arguments = (self.zone, self.other.path, self.other.identity, REASON, lambda error, _: self.ended.append(error))
        thread = threading.Thread(target=self.swap.activate, args=arguments, name="beside")
        thread.start()
        return thread

    def score(self) -> str:
        """The loop scores a part, and says with which bundle."""
        self.zone.recipe_for_next_part().engine(self.zone.active.bundle.golden().frames[0])
        return self.zone.active.bundle.identity


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second bundle for the same camera."""
    return teach(tmp_path_factory.mktemp("other") / "bundle", strided_backbone())


@pytest.fixture
def device(bundle: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    builds = Builds()
    backend = Backend(lambda: None, lambda deployment: SlowToBuild(builds, deployment))
    monkeypatch.setitem(BACKENDS, "tensorrt", backend)
    mine = shutil.copytree(bundle, tmp_path / "mine")
    config = load(write_config(tmp_path, mine, tmp_path / "frames", 1883, engine={"backend": "tensorrt"}))
    cancel = threading.Event()
    loader = BundleLoader(config, choose_backend("tensorrt"), cancel)
    builds.gate.set()
    zone = loader.open_zone("", open_bundle(mine))
    builds.gate.clear()
    builds.begun.clear()
    builds.threads.clear()
    swap = BundleSwap(AuditLog(tmp_path / "audit.jsonl"), loader.load, in_loop=True, changed=lambda: None)
    with ExitStack() as stack:
        stack.callback(zone.close)
        yield Device(zone, open_bundle(shutil.copytree(other, tmp_path / "its")), swap, builds, cancel)


def test_parts_are_inspected_while_the_engine_of_the_next_bundle_is_built(device: Device) -> None:
    before = device.zone.active.bundle.identity
    beside = device.activate()
    assert device.builds.begun.wait(PATIENCE_S)
    assert [device.score() for _ in range(5)] == [before] * 5
    device.builds.gate.set()
    beside.join(PATIENCE_S)
    assert device.score() == device.other.identity
    assert device.ended == [None]
    assert device.builds.threads == ["beside"]


def test_an_engine_that_cannot_be_built_leaves_the_bundle_as_it_was(device: Device) -> None:
    before = device.zone.active.bundle.identity
    device.builds.fails = True
    device.builds.gate.set()
    device.activate().join(PATIENCE_S)
    assert device.score() == before
    assert [error and error.what for error in device.ended] == ["the engine cannot be built"]
    device.swap.reserve()  # the next swap is admitted


def test_an_engine_that_vanishes_before_the_loop_loads_it_is_not_built_there(device: Device) -> None:
    before = device.zone.active.bundle.identity
    device.builds.gate.set()
    device.activate().join(PATIENCE_S)
    shutil.rmtree(device.other.path.with_suffix(".tensorrt"))
    assert device.score() == before
    assert [error and error.what for error in device.ended] == ["no engine is ready"]
    assert device.builds.threads == ["beside"]


def test_a_station_that_stops_cancels_the_build(device: Device) -> None:
    beside = device.activate()
    assert device.builds.begun.wait(PATIENCE_S)
    device.cancel.set()
    device.builds.gate.set()
    beside.join(PATIENCE_S)
    assert [error and error.what for error in device.ended] == ["the engine cannot be built"]


@dataclass
class Jetson:
    """A station with TensorRT on the fake GPU.

    Attributes:
        makers: Thread of each engine that was built or was given a new head.
        device: With the recalibrated bundle as the other one.
    """

    world: Any
    makers: list[str]
    device: Device

    @property
    def made(self) -> tuple[int, int]:
        """How many engines were built, and how many were given a new head."""
        return len(self.world.builds), self.world.refits

    def swap(self) -> None:
        """Activate the other bundle; the loop scores one part before and one after."""
        self.device.score()
        self.device.activate().join(PATIENCE_S)
        self.device.score()


@pytest.fixture(scope="module")
def relearnt(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a recalibration makes of the bundle."""
    old, folder = open_bundle(bundle), tmp_path_factory.mktemp("relearnt")
    with (
        OnnxRuntimeEngine(without_head(old.network.read_bytes()), 1) as engine,
        PartStore(folder / "parts", engine) as parts,
    ):
        for name, picture in Taught():
            parts.add(name, old.preprocess(picture))
        refit_bundle(old, parts, RefitPlan(), folder / "bundle", silent)
    return folder / "bundle"


@pytest.fixture
def jetson(bundle: Path, relearnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jetson]:
    cuda = FakeCuda(ORIN)
    fake_pycuda.install(monkeypatch, cuda)
    # These parts are drawn without noise, so that the rounding of weights shows in their scores.
    monkeypatch.setattr("calibration.network.half_precision.half_precision", lambda network: network)
    world, makers = fake_tensorrt.install(monkeypatch, cuda), list[str]()
    find = KeptEngine.find

    def found(kept: KeptEngine, *arguments: Any, **options: Any) -> Cached:  # noqa: ANN401
        before = len(world.builds), world.refits
        cached = find(kept, *arguments, **options)
        if (len(world.builds), world.refits) != before:
            makers.append(threading.current_thread().name)
        return cached

    monkeypatch.setattr(KeptEngine, "find", found)
    monkeypatch.setitem(BACKENDS, "tensorrt", replace(BACKENDS["tensorrt"], require=lambda: None))
    mine = shutil.copytree(bundle, tmp_path / "mine")
    config = load(write_config(tmp_path, mine, tmp_path / "frames", 1883, engine={"backend": "tensorrt"}))
    cancel = threading.Event()
    loader = BundleLoader(config, choose_backend("tensorrt"), cancel)
    zone = loader.open_zone("", open_bundle(mine))
    makers.clear()
    swap = BundleSwap(AuditLog(tmp_path / "audit.jsonl"), loader.load, in_loop=True, changed=lambda: None)
    other = open_bundle(shutil.copytree(relearnt, tmp_path / "its"))
    with ExitStack() as stack:
        stack.callback(zone.close)
        yield Jetson(world, makers, Device(zone, other, swap, Builds(), cancel))
    assert not cuda.living


def test_the_engine_of_a_recalibrated_bundle_is_that_of_the_active_one_with_a_new_head(jetson: Jetson) -> None:
    before, device = jetson.device.zone.active.bundle, jetson.device
    jetson.swap()
    assert device.ended == [None]
    assert device.zone.active.bundle.identity == device.other.identity
    assert device.zone.active.recipe.engine.backend == "tensorrt"
    assert jetson.made == (1, 1)
    assert jetson.makers == ["beside"]
    device.other = before  # a rollback: its engine lies where it was
    jetson.swap()
    assert device.score() == before.identity
    assert device.ended == [None, None]
    assert jetson.made == (1, 1)


def test_an_engine_that_scores_otherwise_with_the_new_head_is_built_beside_the_loop(jetson: Jetson) -> None:
    jetson.world.roundings = [1.0, 1.0, 1.1]  # loaded, exchanged, loaded with the new head
    jetson.swap()
    assert jetson.device.ended == [None]
    assert jetson.device.score() == jetson.device.other.identity
    assert jetson.made == (2, 1)


def test_without_the_engine_of_the_active_bundle_one_is_built_beside_the_loop(jetson: Jetson) -> None:
    shutil.rmtree(engine_folder(jetson.device.zone.active.bundle, "tensorrt"))
    jetson.swap()
    assert jetson.device.score() == jetson.device.other.identity
    assert jetson.made == (2, 0)
    assert jetson.makers == ["beside"]


def test_a_station_that_stops_makes_no_engine(jetson: Jetson) -> None:
    before = jetson.device.zone.active.bundle.identity
    jetson.device.cancel.set()
    jetson.swap()
    assert ["cancelled" in str(error and error.what) for error in jetson.device.ended] == [True]
    assert jetson.device.score() == before
    assert not engine_folder(jetson.device.other, "tensorrt").joinpath(RECORD).exists()
    assert jetson.world.refits == 0
