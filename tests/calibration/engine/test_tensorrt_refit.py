"""The engine of another bundle is given the new head, proven, and kept; where that fails an engine is built."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.bundle.bundle import GoldenCheck, refuse_mismatch
from calibration.deployment.engine_source import source_of
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt import TensorRTEngine, check_or_rebuild
from calibration.engine.tensorrt_build import BuildOptions
from calibration.engine.tensorrt_cache import PLAN, RECORD, Cached, EngineFolder
from calibration.engine.tensorrt_head import body_digest, head_weights
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import TENSORRT, TENSORRT_RTX
from calibration.engine.tensorrt_program import Program
from calibration.errors import EngineError, ScoreMismatchError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.cuda import Cuda
    from tests.support.fake_gpu import FakeCuda

    Opener = Callable[..., TensorRTEngine]


only_tensorrt = pytest.mark.parametrize("library", [TENSORRT], indirect=True)
only_rtx = pytest.mark.parametrize("library", [TENSORRT_RTX], indirect=True)


@dataclass
class Relearnt:
    """The washers' network with another head, and what its golden frames score."""

    network: bytes
    frames: np.ndarray[Any, Any]
    scores: list[float]

    @property
    def source(self) -> Source:
        return Source.of(self.network)

    def check(self, engine: TensorRTEngine) -> None:
        """Raise where the engine scores otherwise."""
        pairs = zip(self.scores, self.frames, strict=True)
        refuse_mismatch([GoldenCheck(score, engine(frame).score) for score, frame in pairs], 1e-3, "the engine")


def relearnt_by(learnt: Bundle, factor: float) -> Relearnt:
    model = onnx.load_from_string(source_of(learnt).read())
    for tensor in model.graph.initializer:
        if tensor.name.startswith("head."):
            changed = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    network, frames = model.SerializeToString(), learnt.golden().frames
    with OnnxRuntimeEngine(network, 1) as reference:
        scores = [reference(frame).score for frame in frames]
    return Relearnt(network, frames, scores)


@pytest.fixture(scope="session")
def relearnt(learnt: Bundle) -> Relearnt:
    return relearnt_by(learnt, 1.1)


@dataclass
class Successor:
    """Makes engines of the network with another head, where the active bundle's engine lies in its folder.

    Attributes:
        active: The folder of the active bundle's engine.
        folder: That of the other network's.
    """

    engine: Opener
    world: Any
    relearnt: Relearnt
    active: Path
    folder: Path

    def __call__(self, **changes: Any) -> TensorRTEngine:  # noqa: ANN401
        arguments = {"source": self.relearnt.source, "folder": self.folder, "predecessor": self.active}
        return self.engine(**{**arguments, **changes})

    def follow(self, learnt: Bundle) -> None:
        """Give the engine a head, then the engine that came of it a third one."""
        with self() as opened:
            check_or_rebuild(opened, self.relearnt.check)
        third = relearnt_by(learnt, 1.2)
        with self(source=third.source, folder=self.folder / "third", predecessor=self.folder) as opened:
            check_or_rebuild(opened, third.check)


@pytest.fixture
def successor(engine: Opener, world: Any, relearnt: Relearnt, tmp_path: Path) -> Successor:  # noqa: ANN401
    with engine():
        pass
    world.cuda.events.clear()
    return Successor(engine, world, relearnt, tmp_path / "e", tmp_path / "new")


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@only_tensorrt
def test_the_engine_of_another_head_is_given_this_one_and_kept_once_it_is_proven(
    successor: Successor,
    relearnt: Relearnt,
) -> None:
    before = bytes_in(successor.active)
    with successor() as opened:
        assert opened.has_new_head
        assert not (successor.folder / RECORD).exists(), "kept before it was proven"
        check_or_rebuild(opened, relearnt.check)
        assert not opened.has_new_head
        assert opened.built_because is None
    with successor(source=Source(relearnt.source.identity, pytest.fail), may_build=False, predecessor=None) as again:
        relearnt.check(again)
    assert (len(successor.world.builds), successor.world.refits) == (1, 1)
    assert bytes_in(successor.active) == before


@only_tensorrt
def test_heads_can_follow_each_other(
    successor: Successor,
    learnt: Bundle,
) -> None:
    successor.follow(learnt)
    assert (len(successor.world.builds), successor.world.refits) == (1, 2)


@only_tensorrt
def test_versions_before_10_14_need_a_build_for_every_other_head_at_most(
    successor: Successor,
    monkeypatch: pytest.MonkeyPatch,
    learnt: Bundle,
) -> None:
    monkeypatch.setattr("tensorrt.SerializationFlag", enum.Enum("SerializationFlag", "EXCLUDE_WEIGHTS"))
    successor.follow(learnt)
    assert (len(successor.world.builds), successor.world.refits) == (2, 1)


def damaged(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    (folder / PLAN).write_bytes(b"half a plan")


def without_a_record(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    (folder / RECORD).unlink()


def kept_by_an_older_version(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    record = EngineFolder(folder).record().model_dump_json(exclude={"body"})
    (folder / RECORD).write_text(record)


def of_another_body(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    record = EngineFolder(folder).record().model_copy(update={"body": "0" * 64})
    (folder / RECORD).write_text(record.model_dump_json())


def of_another_gpu(folder: Path, world: Any) -> None:  # noqa: ANN401
    del folder
    world.cuda.gpu = type(world.cuda.gpu)("another", "8.6", 8 << 30, integrated=False)


def refused(*what: str) -> Callable[[Path, Any], None]:
    return lambda _, world: world.refuse.update(what)


def with_other_scores(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    world.roundings = [1.0, 1.0, 1.01]  # loaded, exchanged, loaded with the new head


def that_does_not_run(folder: Path, world: Any) -> None:  # noqa: ANN401, ARG001
    answers = iter([False])  # the first that is run is the one with the new head
    world.enqueue = lambda: next(answers, True)


@only_tensorrt
@pytest.mark.parametrize(
    ("spoil", "refits", "why"),
    [
        (damaged, 0, "is damaged"),
        (without_a_record, 0, "no engine in"),
        (kept_by_an_older_version, 0, "differ in more than their heads"),
        (of_another_body, 0, "differ in more than their heads"),
        (of_another_gpu, 0, "gpu was"),
        (refused("refit"), 0, "cannot replace the head's weights"),
        (refused("missing"), 0, "lacks head.forgotten"),
        (with_other_scores, 1, "the engine with a new head has other scores"),
        (that_does_not_run, 1, "the engine with a new head cannot be loaded"),
    ],
)
def test_an_engine_is_built_where_the_other_one_cannot_be_given_the_head(
    successor: Successor,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, Any], None],
    refits: int,
    why: str,
) -> None:
    caplog.set_level("INFO")
    spoil(successor.active, successor.world)
    before = bytes_in(successor.active)
    with successor() as opened:
        check_or_rebuild(opened, successor.relearnt.check)
        assert opened.built_because is not None
    assert why in caplog.text
    assert (len(successor.world.builds), successor.world.refits) == (2, refits)
    assert isinstance(EngineFolder(successor.folder).find(opened.key), Cached)
    assert bytes_in(successor.active) == before
    assert successor.world.cuda.events[-1] == "left"


@only_tensorrt
def test_two_engines_are_never_in_memory_beside_the_active_one(
    successor: Successor, cuda: FakeCuda, relearnt: Relearnt
) -> None:
    with successor() as opened:
        gone = [event for event in cuda.events if event.endswith("gone")]
        assert gone == ["context gone", "engine gone", "runtime gone"]
        check_or_rebuild(opened, relearnt.check)


@only_tensorrt
def test_an_engine_that_is_wrong_even_when_built_is_refused(
    successor: Successor,
    relearnt: Relearnt,
) -> None:
    successor.world.roundings = [1.0, 1.0, 1.01, 1.01]
    with successor() as opened, pytest.raises(ScoreMismatchError):
        check_or_rebuild(opened, relearnt.check)
    assert len(successor.world.builds) == 2
    assert successor.world.cuda.events[-1] == "left"


@only_tensorrt
def test_a_disk_that_is_full_is_a_clear_error_and_all_is_released(
    successor: Successor, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, relearnt: Relearnt
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calibration.engine.tensorrt_cache.replace_file", full)
    with successor() as opened, pytest.raises(StorageError, match="No space left"):
        check_or_rebuild(opened, relearnt.check)
    assert cuda.events[-1] == "left"


@only_tensorrt
def test_a_build_has_the_options_and_the_measured_layers_of_the_engine_before(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
    tmp_path: Path,
) -> None:
    world.refuse = {"mark"}
    options = BuildOptions(workspace_mib=256)
    with engine(options=options):
        pass
    with engine(source=relearnt.source, folder=tmp_path / "new", predecessor=tmp_path / "e") as opened:
        check_or_rebuild(opened, relearnt.check)
        assert opened.key.options["workspace_mib"] == 256
    assert EngineFolder(tmp_path / "new").timings() == b"timed timed "


@only_tensorrt
def test_a_station_that_stops_gives_no_engine_another_head(successor: Successor) -> None:
    stopped = successor()
    stopped._kept._cancel.set()
    with pytest.raises(EngineError, match="cancelled"):
        stopped.__enter__()
    assert successor.world.refits == 0
    assert successor.world.cuda.events[-1] == "left"


@only_rtx
def test_tensorrt_for_rtx_builds_ahead_of_time_instead(
    successor: Successor,
    relearnt: Relearnt,
) -> None:
    with successor() as opened:
        check_or_rebuild(opened, relearnt.check)
        assert not opened.has_new_head
    with successor(may_build=False) as again:
        relearnt.check(again)
    assert (len(successor.world.builds), successor.world.refits, successor.world.compiled) == (2, 0, 2)


def test_bodies_are_the_same_only_if_all_but_the_values_of_the_head_is(learnt: Bundle, relearnt: Relearnt) -> None:
    network = source_of(learnt).read()
    assert body_digest(network) == body_digest(relearnt.network)

    def changed(change: Callable[[onnx.GraphProto], object]) -> str:
        model = onnx.load_from_string(network)
        change(model.graph)
        return body_digest(model.SerializeToString())

    def scale(graph: onnx.GraphProto, *, of_head: bool) -> None:
        tensors = [each for each in graph.initializer if each.name.startswith("head.") == of_head]
        tensor = next(each for each in tensors if each.data_type == onnx.TensorProto.FLOAT and each.dims)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))

    def resize(graph: onnx.GraphProto) -> None:
        tensor = next(each for each in graph.initializer if each.name == "head.mean")
        tensor.CopyFrom(numpy_helper.from_array(np.zeros((2, *tensor.dims), np.float32), tensor.name))

    assert changed(lambda graph: scale(graph, of_head=True)) == body_digest(network)
    assert changed(lambda graph: scale(graph, of_head=False)) != body_digest(network)
    assert changed(resize) != body_digest(network)
    assert changed(lambda graph: graph.node.pop()) != body_digest(network)


@only_tensorrt
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda head: head.update({"head.unknown": np.zeros(3)}), "not accept new weights for head.unknown"),
        (lambda head: head.update({"head.mean": np.zeros(3)}), r"not accept new weights for head.mean, \(3,\)"),
        (lambda head: head.update({"backbone.scale": np.zeros((3, 3))}), "not accept new weights for backbone.scale"),
    ],
)
def test_weights_of_other_names_or_shapes_are_refused_and_the_engine_is_closed(
    successor: Successor,
    cuda: FakeCuda,
    relearnt: Relearnt,
    change: Callable[[dict[str, Any]], None],
    what: str,
) -> None:
    head = head_weights(relearnt.network)
    change(head)
    with cuda:
        program = Program(TENSORRT, cast("Cuda", cuda), (successor.active / PLAN).read_bytes())
        with pytest.raises(EngineError, match=what):
            program.refit(head)
        assert cuda.events[-1] == "runtime gone"
        with pytest.raises(EngineError, match="not open"):
            program.run(relearnt.frames[0])
