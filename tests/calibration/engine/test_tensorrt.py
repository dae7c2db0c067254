"""The TensorRT engine on a fake GPU that runs ONNX Runtime: it runs, fails clearly, and releases what it took."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from calibration.bundle.bundle import check_golden
from calibration.deployment.engine_source import engine_folder, source_of
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import TENSORRT, TENSORRT_RTX
from calibration.errors import EngineError
from tests.support import fake_tensorrt
from tests.support.fake_gpu import DESKTOP, ORIN, FakeCuda

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.tensorrt import TensorRTEngine
    from calibration.engine.tensorrt_library import Library

    Opener = Callable[..., TensorRTEngine]


@pytest.fixture
def frame(learnt: Bundle) -> Any:  # noqa: ANN401
    return learnt.golden().frames[0]


def test_it_scores_as_onnx_runtime_does(engine: Opener, learnt: Bundle, library: Library) -> None:
    with engine() as mine, OnnxRuntimeEngine(source_of(learnt).read(), 1) as reference:
        assert mine.backend == library.backend
        check_golden(learnt, mine)
        for frame in learnt.golden().frames:
            here, there = mine(frame), reference(frame)
            assert here.score == pytest.approx(there.score, rel=1e-6)
            np.testing.assert_allclose(here.map, there.map, rtol=1e-5)


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
@pytest.mark.parametrize("mapped_s", [0.001, 0.003])
def test_a_result_does_not_change_when_the_next_frame_is_scored(
    engine: Opener, learnt: Bundle, cuda: FakeCuda, mapped_s: float
) -> None:
    cuda.gpu, cuda.mapped_s = ORIN, mapped_s
    frames = learnt.golden().frames
    with engine() as mine:
        first = mine(frames[0])
        kept = first.map.copy()
        mine(frames[-1])
        np.testing.assert_array_equal(first.map, kept)


def test_score_and_map_are_copied_and_the_features_stay_on_the_gpu(
    engine: Opener,
    cuda: FakeCuda,
    frame: Any,  # noqa: ANN401
) -> None:
    with engine() as mine:
        before = cuda.downloads
        mine(frame)
        assert cuda.downloads == before + 2


def test_all_is_released_in_the_order_in_which_it_depends_on_each_other(engine: Opener, cuda: FakeCuda) -> None:
    with engine():
        cuda.events.clear()
    assert cuda.events == [
        "released device",
        *["released device", "released pinned"] * 3,
        "context gone",
        "engine gone",
        "runtime gone",
        "left",
    ]


def test_it_can_be_opened_again(engine: Opener, cuda: FakeCuda, frame: Any) -> None:  # noqa: ANN401
    opened = engine()
    with opened:
        score = opened(frame).score
    with opened:
        assert opened(frame).score == score
    assert cuda.events.count("left") == 2
    with pytest.raises(EngineError, match="not open"):
        opened(frame)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 32, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((64, 64, 3), np.float32),
    ],
)
def test_a_frame_of_another_size_or_type_is_refused_and_the_next_one_scored(
    engine: Opener,
    frame: Any,  # noqa: ANN401
    wrong: Any,  # noqa: ANN401
) -> None:
    with engine() as mine:
        score = mine(frame).score
        with pytest.raises(EngineError, match=r"takes uint8 \(64, 64, 3\), the frame is"):
            mine(wrong)
        assert mine(frame).score == score


def test_tensorrt_refusing_to_run_is_a_clear_error_and_nothing_stays_in_flight(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
    frame: Any,  # noqa: ANN401
) -> None:
    with engine() as mine:
        score = mine(frame).score
        world.enqueue = lambda: False
        with pytest.raises(EngineError, match="cannot run the network"):
            mine(frame)
        assert cuda.waiting == []
        world.enqueue = lambda: True
        assert mine(frame).score == score


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_while_work_is_in_flight_leaves_none_behind(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
    frame: Any,  # noqa: ANN401
    error: type[BaseException],
) -> None:
    def interrupted() -> bool:
        raise error

    with engine() as mine:
        score = mine(frame).score
        world.enqueue = interrupted
        with pytest.raises(error):
            mine(frame)
        assert cuda.waiting == []
        world.enqueue = lambda: True
        assert mine(frame).score == score


def test_a_gpu_that_fails_is_a_clear_error_and_all_is_released_all_the_same(
    engine: Opener,
    cuda: FakeCuda,
    frame: Any,  # noqa: ANN401
) -> None:
    opened = engine()
    opened.__enter__()
    cuda.synchronise_error = EngineError(what="the GPU failed: illegal address", remedy="restart")
    with pytest.raises(EngineError, match="illegal address"):
        opened(frame)
    with pytest.raises(EngineError, match="illegal address"):
        opened.__exit__(None, None, None)
    assert cuda.living == {}
    assert cuda.events[-4:] == ["context gone", "engine gone", "runtime gone", "left"]


def test_only_the_thread_that_opened_it_may_use_it(engine: Opener, frame: Any) -> None:  # noqa: ANN401
    said: list[str] = []

    def use() -> None:
        try:
            mine(frame)
        except EngineError as error:
            said.append(error.what)

    with engine() as mine:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert said == ["the engine is used from a thread that did not open it"]


def changed(network: bytes, change: Callable[[onnx.GraphProto], None]) -> Source:
    model = onnx.load_from_string(network)
    change(model.graph)
    return Source.of(model.SerializeToString())


def without_features(graph: onnx.GraphProto) -> None:
    del graph.output[2]


def half_score(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Cast", ["score"], ["half"], to=TensorProto.FLOAT16))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("half", TensorProto.FLOAT16, (1,)))


def open_shape(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"


def one_output_more(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["score"], ["other"]))
    graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, (1,)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (without_features, "no features"),
        (half_score, r"half is float16 \(1,\); no score"),
        (open_shape, r"score is float32 \(-1,\)"),
        (one_output_more, r"other is float32 \(1,\)"),
    ],
)
def test_an_engine_of_another_network_is_refused_and_released(
    engine: Opener, cuda: FakeCuda, learnt: Bundle, change: Callable[[onnx.GraphProto], None], what: str
) -> None:
    opened = engine(source=changed(learnt.network.read_bytes(), change))
    with pytest.raises(EngineError, match=what):
        opened.__enter__()
    assert cuda.events[-3:] == ["engine gone", "runtime gone", "left"]


@pytest.mark.parametrize("taken", range(7))
def test_memory_that_runs_out_while_buffers_are_made_is_a_clear_error_and_all_is_released(
    engine: Opener, cuda: FakeCuda, taken: int
) -> None:
    cuda.fails_after = taken
    with pytest.raises(EngineError, match="out of memory"):
        engine().__enter__()
    assert cuda.events.count("released device") + cuda.events.count("released pinned") == taken
    assert cuda.events[-1] == "left"


@pytest.mark.parametrize(
    ("refuse", "what"),
    [
        ("context", "no memory left for the engine"),
        ("plan", r"cannot load the engine \(TensorRT.* says: Version tag does not match\)"),
        ("address of map", "does not accept the buffer for map"),
    ],
)
def test_what_tensorrt_refuses_while_loading_is_a_clear_error_and_all_is_released(
    engine: Opener,
    world: Any,  # noqa: ANN401
    cuda: FakeCuda,
    refuse: str,
    what: str,
) -> None:
    world.refuse = {refuse}
    with pytest.raises(EngineError, match=what):
        engine().__enter__()
    assert cuda.events[-1] == "left"
    assert cuda.events[-2] == "runtime gone"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    """Time passes only when the GPU is waited for."""
    monkeypatch.setattr("calibration.engine.tensorrt.perf_counter", lambda: cuda.clock_s)


@pytest.mark.parametrize("library", [TENSORRT], indirect=True)
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("mapped_s", "downloads"), [(0.001, 0), (0.003, 2)])
def test_the_first_start_on_a_jetson_measures_which_buffers_are_quicker_and_later_ones_remember(
    engine: Opener,
    cuda: FakeCuda,
    frame: Any,  # noqa: ANN401
    mapped_s: float,
    downloads: int,
) -> None:
    cuda.gpu, cuda.mapped_s = ORIN, mapped_s
    for start in range(2):
        cuda.clock_s = 0.0
        with engine() as mine:
            assert (cuda.clock_s > 0.02) == (start == 0)
            before = cuda.downloads
            score = mine(frame).score
            assert cuda.downloads - before == downloads
    assert score > 0


def test_on_a_gpu_with_memory_of_its_own_buffers_are_copied_and_nothing_is_measured(
    engine: Opener, cuda: FakeCuda, tmp_path: Path
) -> None:
    cuda.gpu = DESKTOP
    with engine():
        assert set(cuda.living.values()) == {"pinned", "device"}
        assert len(cuda.living) == 7
    assert '"mapped_ms": null' in (tmp_path / "e" / "engine.json").read_text()


def test_the_engine_lies_beside_the_bundle(learnt: Bundle) -> None:
    assert engine_folder(learnt, "tensorrt") == learnt.path.parent / "washers.tensorrt"


def test_an_engine_that_may_not_be_built_here_is_refused_at_once_and_loaded_once_it_is_ready(
    engine: Opener, learnt: Bundle, cuda: FakeCuda
) -> None:
    with (
        pytest.raises(EngineError, match=r"no TensorRT.* engine is ready: no engine in .* yet"),
        engine(may_build=False),
    ):
        pytest.fail("it was built")
    assert not cuda.living
    with engine() as built:
        assert built.built_because is not None
    with engine(may_build=False) as loaded:
        assert loaded.built_because is None
        check_golden(learnt, loaded)


@pytest.mark.parametrize(
    ("library", "old", "new"), [(TENSORRT, "10.2.0.19", "10.3.0"), (TENSORRT_RTX, "1.6.1", "1.7.0")]
)
def test_a_library_that_is_too_old_is_refused(
    monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, library: Library, old: str, new: str
) -> None:
    fake_tensorrt.install(monkeypatch, cuda, old, library.modules[0])
    with pytest.raises(EngineError, match=rf"{library.name} {old} is too old"):
        library.imported()
    fake_tensorrt.install(monkeypatch, cuda, new, library.modules[0])
    assert library.imported().__version__ == new
