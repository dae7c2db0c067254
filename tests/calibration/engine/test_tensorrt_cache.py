"""Engines are built once, kept whole or not at all, and never taken for what they are not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from calibration.bundle.bundle import check_golden
from calibration.deployment.engine_source import source_of
from calibration.engine.tensorrt import check_or_rebuild
from calibration.engine.tensorrt_build import BuildOptions
from calibration.engine.tensorrt_cache import PLAN, RECORD, TIMINGS
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import TENSORRT
from calibration.errors import ScoreMismatchError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.tensorrt import TensorRTEngine
    from tests.support.fake_gpu import FakeCuda

    Opener = Callable[..., TensorRTEngine]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the fixture ``engine`` keeps engines."""
    return tmp_path / "e"


@pytest.fixture
def kept(engine: Opener, world: Any) -> Any:  # noqa: ANN401
    """The world after one build."""
    with engine() as first:
        assert first.built_because is not None
        assert "no engine in" in first.built_because
    assert len(world.builds) == 1
    return world


def unread() -> bytes:
    pytest.fail("the network must not be read")


def test_a_kept_engine_is_loaded_without_reading_the_network(engine: Opener, kept: Any, learnt: Bundle) -> None:  # noqa: ANN401
    with engine(source=Source(source_of(learnt).identity, unread)) as second:
        assert second.built_because is None
        check_golden(learnt, second)
    assert len(kept.builds) == 1


def other_tensorrt(_world: Any) -> dict[str, Any]:  # noqa: ANN401
    vars(sys.modules["tensorrt"])["__version__"] = "10.16.1.11"
    return {}


def other_gpu(world: Any) -> dict[str, Any]:  # noqa: ANN401
    world.cuda.gpu = replace(world.cuda.gpu, name="NVIDIA RTX 5000", compute_capability="12.0")
    return {}


def other_options(_world: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"options": BuildOptions(workspace_mib=512)}


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_tensorrt, "tensorrt was 10.3.0, is 10.16.1.11"),
        (other_gpu, "gpu was NVIDIA RTX 4000, is NVIDIA RTX 5000; compute_capability was 8.9, is 12.0"),
        (other_options, "options was {'workspace_mib': 1024"),
    ],
)
def test_an_engine_built_for_something_else_is_rebuilt_with_the_reason(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    change: Callable[[Any], dict[str, Any]],
    why: str,
) -> None:
    changes = change(kept)
    with engine(**changes) as opened:
        assert (opened.built_because or "").startswith(why)
    with engine(**changes) as again:
        assert again.built_because is None
    assert len(kept.builds) == 2


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
def test_without_options_the_kept_engine_is_used_and_its_options_for_the_next_build(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    learnt: Bundle,
) -> None:
    with engine(options=BuildOptions(workspace_mib=512)):
        pass
    with engine() as opened:
        assert opened.built_because is None
    with engine(source=Source("another", learnt.network.read_bytes)) as opened:
        assert opened.key.options["workspace_mib"] == 512
    assert len(kept.builds) == 3


@pytest.mark.parametrize("options", [None, {}, {"workspace_mib": 1}, {"something": 1}])
def test_unknown_kept_options_become_the_defaults(options: dict[str, int] | None) -> None:
    assert BuildOptions.of_record(options) == BuildOptions()


def test_a_changed_network_is_named_by_the_start_of_its_hash(
    engine: Opener,
    kept: Any,  # noqa: ANN401, ARG001
    learnt: Bundle,
) -> None:
    with engine(source=Source("f" * 64, learnt.network.read_bytes)) as opened:
        assert opened.built_because == f"network was {source_of(learnt).identity[:12]}..., is {'f' * 12}..."


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: flip_a_bit(folder / PLAN), "is damaged"),
        (lambda folder: (folder / PLAN).write_bytes(b""), "is damaged"),
        (lambda folder: (folder / PLAN).unlink(), "no engine in"),
        (lambda folder: (folder / RECORD).unlink(), "no engine in"),
        (lambda folder: (folder / RECORD).write_bytes(b"{}"), "cannot be read"),
        (lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe{"), "cannot be read"),
    ],
)
def test_a_damaged_engine_is_rebuilt(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    folder: Path,
    damage: Callable[[Path], None],
    why: str,
) -> None:
    damage(folder)
    with engine() as opened:
        assert why in (opened.built_because or "")
    assert len(kept.builds) == 2


def test_an_engine_without_its_record_is_not_used(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    folder: Path,
    learnt: Bundle,
) -> None:
    old = (folder / RECORD).read_bytes()
    with engine(options=BuildOptions(optimisation_level=1)):
        pass
    (folder / PLAN).write_bytes((folder / PLAN).read_bytes() + b" ")
    (folder / RECORD).write_bytes(old)  # as if the power had gone between the two
    with engine() as opened:
        check_golden(learnt, opened)
    assert len(kept.builds) == 3


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
def test_the_record_says_what_the_engine_is_for(kept: Any, folder: Path, learnt: Bundle) -> None:  # noqa: ANN401, ARG001
    record = json.loads((folder / RECORD).read_text())
    assert record["key"] == {
        "network": source_of(learnt).identity,
        "tensorrt": "10.3.0",
        "gpu": "NVIDIA RTX 4000",
        "compute_capability": "8.9",
        "options": {"workspace_mib": 1024, "tactic_memory_mib": 2048, "optimisation_level": 3},
    }
    assert {path.name for path in folder.iterdir()} == {PLAN, RECORD, TIMINGS, "lock"}
    assert (folder / PLAN).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
def test_layer_timings_are_reused_and_foreign_ones_do_no_harm(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    folder: Path,
) -> None:
    with engine(options=BuildOptions(optimisation_level=1)):
        assert (folder / TIMINGS).read_bytes() == b"timed timed "
    kept.refuse = {"timings"}
    with engine(options=BuildOptions(optimisation_level=2)):
        assert (folder / TIMINGS).read_bytes() == b"timed "


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
def test_an_unwritable_folder_is_reported_before_the_build(
    engine: Opener,
    world: Any,  # noqa: ANN401
    folder: Path,
    cuda: FakeCuda,
) -> None:
    folder.write_text("in the way")
    with pytest.raises(StorageError, match="cannot keep the engine"):
        engine().__enter__()
    assert world.builds == []
    assert cuda.events[-1] == "left"


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
@pytest.mark.parametrize("failing", range(6))
def test_a_full_disk_leaves_nothing_half_written_and_the_next_start_builds(  # noqa: PLR0913, PLR0917
    engine: Opener,
    world: Any,  # noqa: ANN401, ARG001
    folder: Path,
    learnt: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
) -> None:
    flushed = 0

    def fsync(_descriptor: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed == failing + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match="No space left"):
            engine().__enter__()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    with engine() as opened:
        check_golden(learnt, opened)


def test_an_engine_that_another_process_built_meanwhile_is_used(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aside = folder.rename(folder.with_name("aside"))

    def waiting_for_the_other(_descriptor: int, operation: int) -> None:
        assert operation == fcntl.LOCK_EX
        shutil.copytree(aside, folder, dirs_exist_ok=True)

    monkeypatch.setattr(fcntl, "flock", waiting_for_the_other)
    with engine() as opened:
        assert opened.built_because is None
    assert len(kept.builds) == 1


def test_a_kept_engine_with_other_scores_is_rebuilt_once(
    engine: Opener,
    kept: Any,  # noqa: ANN401
    learnt: Bundle,
) -> None:
    kept.roundings = [1.1]  # of the first engine loaded from now on
    with engine() as opened:
        check_or_rebuild(opened, lambda candidate: check_golden(learnt, candidate))
        assert "has other scores" in (opened.built_because or "")
    assert len(kept.builds) == 2


def test_a_new_engine_with_other_scores_is_refused_and_not_rebuilt(
    engine: Opener,
    world: Any,  # noqa: ANN401
    learnt: Bundle,
) -> None:
    world.roundings = [1.1]
    with engine() as opened, pytest.raises(ScoreMismatchError, match=r"golden frame \d"):
        check_or_rebuild(opened, lambda candidate: check_golden(learnt, candidate))
    assert len(world.builds) == 1
