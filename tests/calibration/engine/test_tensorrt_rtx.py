"""TensorRT for RTX: built ahead of time by NVIDIA's own library, compiled once by a fake of what needs a GPU."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from calibration.atomic_file import replace_file
from calibration.bundle.bundle import check_golden
from calibration.deployment.engine_source import source_of
from calibration.engine.tensorrt_build import BuildOptions
from calibration.engine.tensorrt_cache import KERNELS, PLAN, RECORD, Cached, EngineFolder, Record
from calibration.engine.tensorrt_kept import KeptEngine, Source
from calibration.engine.tensorrt_library import TENSORRT_RTX
from calibration.engine.tensorrt_rtx import refuse_other_gpus
from calibration.errors import EngineError, StorageError
from calibration.progress import silent
from tests.support import fake_tensorrt_rtx
from tests.support.fake_gpu import DESKTOP, FakeCuda
from tests.support.real_tensorrt import rtx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.tensorrt import TensorRTEngine

    Opener = Callable[..., TensorRTEngine]

only_rtx = pytest.mark.parametrize("library", [TENSORRT_RTX], indirect=True)
OTHER = replace(DESKTOP, name="NVIDIA GeForce RTX 3060", compute_capability="8.6")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the fixture ``engine`` keeps engines."""
    return tmp_path / "e"


@pytest.fixture
def ahead(learnt: Bundle, tmp_path: Path) -> Callable[..., KeptEngine]:
    """Makes what builds the washers' engine ahead of time, with NVIDIA's own library, on a machine without a GPU."""
    rtx()

    def make(*capabilities: str, cancel: Event | None = None, source: Source | None = None) -> KeptEngine:
        options = BuildOptions(compute_capabilities=capabilities)
        where = (source or source_of(learnt), tmp_path / "ahead", options)
        return KeptEngine(TENSORRT_RTX, *where, silent, cancel or Event())

    return make


def test_an_engine_is_built_once_on_a_machine_without_a_gpu(ahead: Callable[..., KeptEngine], tmp_path: Path) -> None:
    first = ahead()
    built = first.find(None)
    assert first.built_because == f"no engine in {tmp_path / 'ahead'} yet"
    assert (tmp_path / "ahead" / PLAN).read_bytes() == built.plan
    assert (built.record.key.gpu, built.record.key.compute_capability, built.record.key.options) == ("any", "any", {})
    second = ahead()
    assert second.find(None) == built
    assert second.built_because is None


@pytest.mark.parametrize("capability", TENSORRT_RTX.compute_capabilities)
def test_the_library_builds_for_each_gpu_that_we_name(ahead: Callable[..., KeptEngine], capability: str) -> None:
    cached = ahead(capability).find(None)
    assert cached.record.key.compute_capabilities == (capability,)
    assert cached.plan


def test_an_engine_for_other_gpus_is_built_again(ahead: Callable[..., KeptEngine]) -> None:
    ahead().find(None)
    other = ahead("8.6", "8.9")
    other.find(None)
    assert other.built_because == "compute_capability was any, is 8.6, 8.9"


def test_a_build_can_be_stopped(ahead: Callable[..., KeptEngine], tmp_path: Path) -> None:
    cancel = Event()
    cancel.set()
    with pytest.raises(EngineError, match="was cancelled"):
        ahead(cancel=cancel).find(None)
    assert not (tmp_path / "ahead" / PLAN).exists()


def test_an_engine_that_cannot_be_kept_is_an_error_where_it_is_built_ahead(
    ahead: Callable[..., KeptEngine], tmp_path: Path
) -> None:
    (tmp_path / "ahead").write_text("in the way")
    with pytest.raises(StorageError, match="cannot keep the engine"):
        ahead().find(None)


def test_the_fake_has_nothing_that_the_library_has_not() -> None:
    fakes = {
        "IBuilderConfig": fake_tensorrt_rtx._Config,
        "ICudaEngine": fake_tensorrt_rtx._Engine,
        "IRuntimeCache": fake_tensorrt_rtx._RuntimeCache,
        "IRuntimeConfig": fake_tensorrt_rtx._RuntimeConfig,
        "ComputeCapability": fake_tensorrt_rtx.ComputeCapability,
    }
    invented = {"compile", "kernels"}
    for name, fake in fakes.items():
        assert {each for each in dir(fake) if each[0] != "_"} - invented <= set(dir(getattr(rtx(), name))), name


@pytest.mark.parametrize(
    ("capability", "what", "instead"),
    [
        ("7.5", "which is Turing", "use TensorRT"),
        ("8.7", "which is a Jetson Orin", "use TensorRT"),
        ("9.0", "which is a GPU for data centres", "use TensorRT"),
        ("11.0", "which is a Jetson Thor", "use TensorRT"),
        ("13.0", "capability 13.0; it can for 8.0", "use TensorRT"),
        ("8", "capability 8; it can for 8.0, 8.6, 8.9, 12.0, 12.1", "shiftwatch-agent doctor"),
        ("SM86", "capability SM86; it can for", "shiftwatch-agent doctor"),
    ],
)
def test_a_gpu_that_the_library_cannot_build_for_is_refused_with_what_can_be_done(
    capability: str, what: str, instead: str
) -> None:
    with pytest.raises(EngineError, match=what) as refusal:
        refuse_other_gpus(capability)
    assert instead in refusal.value.remedy


@only_rtx
def test_the_first_load_compiles_for_the_gpu_and_the_next_does_not(
    engine: Opener,
    world: Any,  # noqa: ANN401
    learnt: Bundle,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with engine() as opened:
                check_golden(learnt, opened)
    assert (len(world.builds), world.compiled) == (1, 1)
    loads = [record.message.partition(" s, ")[2] for record in caplog.records if "was loaded in" in record.message]
    assert loads == [f"compiling it for {DESKTOP.name}", "with the kernels of an earlier start"]
    record = EngineFolder(folder).record()
    assert record.compiled_ms is not None
    assert record.compiled_ms > 0
    assert not opened.key.options


@only_rtx
@pytest.mark.parametrize("kept", [b"", b"damaged"])
def test_kernels_that_do_not_fit_are_ignored_and_replaced(
    engine: Opener,
    world: Any,  # noqa: ANN401
    folder: Path,
    kept: bytes,
) -> None:
    with engine():
        good = (folder / KERNELS).read_bytes()
    (folder / KERNELS).write_bytes(kept)
    with engine():
        pass
    assert (world.compiled, (folder / KERNELS).read_bytes()) == (2, good)


@only_rtx
def test_kernels_of_an_engine_that_another_one_was_copied_over_are_replaced(
    engine: Opener,
    world: Any,  # noqa: ANN401
    folder: Path,
) -> None:
    with engine():
        pass
    record = EngineFolder(folder).record()
    (folder / RECORD).write_text(record.model_copy(update={"compiled_ms": None}).model_dump_json())
    for _ in range(2):
        with engine():
            pass
    assert (len(world.builds), world.compiled) == (1, 2)


@only_rtx
def test_an_engine_for_any_gpu_is_compiled_for_another_one_without_a_build(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
) -> None:
    with engine(options=BuildOptions()):
        pass
    cuda.gpu = OTHER
    with engine() as opened:
        assert (opened.built_because, opened.key.compute_capability) == (None, "any")
    assert (len(world.builds), world.compiled) == (1, 2)


@only_rtx
def test_an_engine_for_another_gpu_is_built_on_the_device(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
) -> None:
    with engine() as opened:
        assert opened.key.compute_capability == DESKTOP.compute_capability
    cuda.gpu = OTHER
    with engine() as opened:
        assert opened.built_because == "compute_capability was 8.9, is 8.6"
    capabilities = fake_tensorrt_rtx.ComputeCapability
    assert [config._capabilities for config in world.builds] == [[capabilities.SM89], [capabilities.SM86]]
    assert world.compiled == 2


@only_rtx
def test_an_engine_of_another_version_is_built_on_the_device(
    engine: Opener, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> None:
    with engine(options=BuildOptions()):
        pass
    fake_tensorrt_rtx.install(monkeypatch, cuda, "1.8.0")
    with engine() as opened:
        assert (opened.built_because, opened.key.compute_capability) == ("tensorrt was 1.7.1.116, is 1.8.0", "any")


@only_rtx
def test_a_build_asks_for_no_gpu_and_sets_no_limits(engine: Opener, world: Any) -> None:  # noqa: ANN401
    with engine(options=BuildOptions(workspace_mib=64, compute_capabilities=("8.6", "8.9"))):
        pass
    (config,) = world.builds
    assert (config._flags, config._pools, config._marked) == (set(), {}, ())
    both = [fake_tensorrt_rtx.ComputeCapability.SM86, fake_tensorrt_rtx.ComputeCapability.SM89]
    assert config._capabilities == both


@only_rtx
def test_a_folder_that_cannot_be_written_costs_time_at_each_start_and_nothing_else(
    engine: Opener,
    world: Any,  # noqa: ANN401
    learnt: Bundle,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder.write_text("in the way")
    for _ in range(2):
        with engine() as opened:
            check_golden(learnt, opened)
    assert (len(world.builds), world.compiled) == (2, 2)
    assert "it is built at each start" in caplog.text
    assert "it is compiled at each start" in caplog.text


@only_rtx
@pytest.mark.usefixtures("world")
def test_kernels_are_not_kept_for_an_engine_that_was_not(engine: Opener, folder: Path) -> None:
    with engine():
        pass
    kept = EngineFolder(folder)
    record = kept.record()
    for other in (record.key.model_copy(update={"network": "0" * 64}), record.key):
        with pytest.raises(StorageError, match="the engine itself is not there"):
            kept.keep_kernels(b"of another engine", Record(key=other, plan_sha256="0" * 64))
    assert kept.record() == record
    assert isinstance(kept.find(record.key), Cached)


@only_rtx
def test_kernels_that_cannot_be_kept_leave_the_engine_as_it_was(
    engine: Opener,
    world: Any,  # noqa: ANN401
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with engine():
        pass
    (folder / KERNELS).unlink()

    def full(path: Path, content: bytes) -> None:
        if path.name == KERNELS:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("calibration.engine.tensorrt_cache.replace_file", full)
        with engine():
            pass
    assert {path.name for path in folder.iterdir()} == {PLAN, RECORD, "lock"}
    with engine() as opened:
        assert opened.built_because is None
    assert (len(world.builds), world.compiled) == (1, 3)
