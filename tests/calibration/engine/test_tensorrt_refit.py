"""A new head is exchanged in the loaded engine, proven, and kept; where that fails the engine is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.bundle.bundle import GoldenCheck, refuse_mismatch
from calibration.deployment.engine_source import source_of
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt import TensorRTEngine, replace_engine_head
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import TENSORRT
from calibration.errors import EngineError, ScoreMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass

    from calibration.bundle.bundle import Bundle
    from tests.support.fake_gpu import FakeCuda

    Opener = Callable[..., TensorRTEngine]
else:
    from dataclasses import dataclass


pytestmark = pytest.mark.parametrize("library", [TENSORRT], indirect=True)


@dataclass
class Relearnt:
    """The washers' network with another head, and what its golden frames score."""

    source: Source
    head: dict[str, np.ndarray[Any, Any]]
    frames: np.ndarray[Any, Any]
    scores: list[float]

    def check(self, engine: TensorRTEngine) -> None:
        """Raise where the engine scores otherwise."""
        pairs = zip(self.scores, self.frames, strict=True)
        refuse_mismatch([GoldenCheck(score, engine(frame).score) for score, frame in pairs], 1e-3, "the engine")


@pytest.fixture(scope="session")
def relearnt(learnt: Bundle) -> Relearnt:
    model = onnx.load_from_string(learnt.network.read_bytes())
    head = {}
    for tensor in model.graph.initializer:
        if tensor.name.startswith("head."):
            # Of another type and order in memory, as NumPy's statistics come.
            head[tensor.name] = np.asfortranarray(numpy_helper.to_array(tensor).astype(np.float64) * 1.1)
            tensor.CopyFrom(numpy_helper.from_array(head[tensor.name].astype(np.float32), tensor.name))
    network, frames = model.SerializeToString(), learnt.golden().frames
    with OnnxRuntimeEngine(network, 1) as reference:
        scores = [reference(frame).score for frame in frames]
    return Relearnt(Source.of(network), head, frames, scores)


def test_a_replaced_head_gives_the_scores_of_its_network_and_is_kept(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
) -> None:
    with engine() as opened:
        with pytest.raises(ScoreMismatchError):
            relearnt.check(opened)
        assert replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
        relearnt.check(opened)
    with engine(source=Source(relearnt.source.identity, pytest.fail)) as again:
        assert again.built_because is None
        relearnt.check(again)
    assert (len(world.builds), world.refits) == (1, 1)


def test_the_engine_of_the_old_network_is_not_used_for_the_new_one(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
    learnt: Bundle,
) -> None:
    with engine() as opened:
        replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
    with engine(source=source_of(learnt)) as old:
        assert "network was" in (old.built_because or "")
    assert len(world.builds) == 2


@pytest.mark.parametrize("refuse", ["refit", "missing"])
def test_an_engine_whose_head_cannot_be_replaced_is_rebuilt(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
    relearnt: Relearnt,
    refuse: str,
) -> None:
    with engine() as opened:
        world.refuse = {refuse}
        cuda.events.clear()
        assert not replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
        # The old engine must be gone before the build begins: a Jetson has no room for both.
        assert cuda.events[-3:] == ["context gone", "engine gone", "runtime gone"]
        relearnt.check(opened)
        assert "could not be replaced" in (opened.built_because or "")
    with engine(source=relearnt.source) as again:
        assert again.built_because is None
        relearnt.check(again)
    assert (len(world.builds), world.refits) == (2, 0)


def test_an_engine_with_a_replaced_head_and_other_scores_is_rebuilt(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
) -> None:
    with engine() as opened:
        world.roundings = [1.01]  # of the exchanged engine
        assert not replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
        relearnt.check(opened)
    assert (len(world.builds), world.refits) == (2, 1)


def test_a_rebuilt_engine_with_other_scores_is_refused(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
) -> None:
    with engine() as opened:
        world.roundings = [1.01, 1.01]
        with pytest.raises(ScoreMismatchError):
            replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
    assert len(world.builds) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda head: head.update({"head.unknown": np.zeros(3)}), "not accept new weights for head.unknown"),
        (lambda head: head.update({"head.mean": np.zeros(3)}), r"not accept new weights for head.mean, \(3,\)"),
        (lambda head: head.update({"backbone.scale": np.zeros((3, 3))}), "not accept new weights for backbone.scale"),
    ],
)
def test_weights_of_other_names_or_shapes_are_refused_and_the_engine_is_closed(
    engine: Opener,
    cuda: FakeCuda,
    relearnt: Relearnt,
    change: Callable[[dict[str, Any]], None],
    what: str,
) -> None:
    head = dict(relearnt.head)
    change(head)
    with engine() as opened:
        with pytest.raises(EngineError, match=what):
            opened.refit(head)
        assert cuda.living == {}
        with pytest.raises(EngineError, match="not open"):
            opened(relearnt.frames[0])


def test_an_engine_whose_head_was_not_marked_is_rebuilt_for_a_new_head(
    engine: Opener,
    world: Any,  # noqa: ANN401
    relearnt: Relearnt,
) -> None:
    world.refuse = {"mark"}
    with engine() as opened:
        assert not replace_engine_head(opened, relearnt.source, relearnt.head, relearnt.check)
        relearnt.check(opened)
    assert len(world.builds) == 2
