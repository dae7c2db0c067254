"""What every engine does, for each that can run on the processor of this machine."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from calibration.bundle.bundle import check_golden
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.openvino import OpenVinoEngine, _reason, library, require_compiling
from calibration.errors import EngineError
from calibration.network.fusion import fused_network
from calibration.network.half_precision import half_precision
from calibration.statistics.moments import Moments
from tests.support.random_backbone import random_backbone
from tests.support.washers import SIDE, washer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine

    Create = Callable[[Path | bytes, int], Engine]

ENGINES: dict[str, Create] = {"ONNX Runtime": OnnxRuntimeEngine, "OpenVINO": OpenVinoEngine}


@pytest.fixture(params=ENGINES)
def create(request: pytest.FixtureRequest) -> Create:
    name: str = request.param
    if name == "OpenVINO":
        need_openvino()
    return ENGINES[name]


def need_openvino() -> None:
    try:
        library()
    except EngineError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.what)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_golden_frames_score_as_in_calibration(create: Create, learnt: Bundle, threads: int) -> None:
    with create(learnt.network, threads) as engine, OnnxRuntimeEngine(learnt.network, 1) as reference:
        assert len(check_golden(learnt, engine)) > 1
        frame = washer(3, scratched=True)
        np.testing.assert_allclose(engine(frame).map, reference(frame).map, rtol=1e-4, atol=1e-3)


def test_a_result_is_not_overwritten_by_the_next_and_the_same_frame_scores_the_same(
    create: Create, learnt: Bundle
) -> None:
    with create(learnt.network.read_bytes(), 1) as engine:
        first = engine(washer(0))
        kept = first.map.copy()
        assert engine(washer(1)).score != first.score
        np.testing.assert_array_equal(first.map, kept)
        again = engine(washer(0))
        assert (again.score, again.map.dtype.name, again.map.ndim) == (first.score, "float32", 2)
        np.testing.assert_array_equal(again.map, kept)
        every_second = np.repeat(washer(0), 2, axis=1)[:, ::2]
        assert engine(every_second).score == first.score


def test_an_engine_can_be_opened_in_one_thread_and_used_in_another(create: Create, learnt: Bundle) -> None:
    with ThreadPoolExecutor(1) as other:
        engine = other.submit(create(learnt.network, 1).__enter__).result()
    score = engine(washer(0)).score
    engine.__exit__(None, None, None)
    with engine:
        assert engine(washer(0)).score == score


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.uint8), np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.uint8)]
)
def test_a_frame_of_another_size_or_type_is_refused(create: Create, learnt: Bundle, wrong: NDArray[Any]) -> None:
    with create(learnt.network, 1) as engine:
        with pytest.raises(EngineError):
            engine(wrong)
        assert np.isfinite(engine(washer(0)).score)


@pytest.mark.parametrize("content", [b"", b"no network"])
def test_what_is_not_a_network_is_refused(create: Create, content: bytes) -> None:
    with pytest.raises(EngineError, match="cannot load the network") as refusal, create(content, 1):
        pass
    assert "Exception from" not in refusal.value.what


def test_a_network_with_a_damaged_name_is_refused(create: Create, learnt: Bundle) -> None:
    damaged = learnt.network.read_bytes().replace(b"AveragePool", b"\xd9veragePool")  # not UTF-8 either
    with pytest.raises(EngineError, match="cannot load the network"), create(damaged, 1):
        pass


def test_a_network_that_takes_no_frame_is_refused(create: Create, learnt: Bundle) -> None:
    network = onnx.load(learnt.network)
    dimension = network.graph.input[0].type.tensor_type.shape.dim[0]
    dimension.Clear()
    dimension.dim_param = "any"
    with pytest.raises(EngineError, match="not one frame"), create(network.SerializeToString(), 1):
        pass


def test_a_network_in_a_folder_whose_name_is_not_utf8_is_read(create: Create, learnt: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"L\xf6tung")
    folder.mkdir()
    copy = folder / "network.onnx"
    shutil.copy(learnt.network, copy)
    with create(copy, 1) as engine:
        check_golden(learnt, engine)


@pytest.mark.slow
def test_thousands_of_frames_and_openings_leave_no_memory_behind(create: Create, learnt: Bundle) -> None:
    def run(openings: int) -> int:
        for _ in range(openings):
            with create(content, 1) as engine:
                for number in range(300):
                    engine(frames[number % 2])
        gc.collect()
        return resident_kib()

    content, frames = learnt.network.read_bytes(), [washer(0), washer(1)]
    before = run(3)
    assert run(8) - before < 16 * 1024


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_threads_sleep_between_two_frames(create: Create, learnt: Bundle) -> None:
    with create(learnt.network, 2) as engine:
        engine(washer(0))
        before = os.times()
        Event().wait(0.3)
        after = os.times()
    worked_s = after.user + after.system - before.user - before.system
    assert worked_s < (after.elapsed - before.elapsed) / 2, "one spinning thread works all the time"


def test_half_precision_that_the_network_asks_for_is_kept_within_its_tolerance() -> None:
    need_openvino()
    detector = MeanShift()
    head = detector.head(Moments.of(np.random.default_rng(0).normal(size=(49, 40, 12))))
    network = fused_network(random_backbone(), detector, head, divide_brightness=False)
    half = half_precision(network).SerializeToString()
    with (
        OnnxRuntimeEngine(network.SerializeToString(), 1) as reference,
        OpenVinoEngine(half, 1, "as in the network") as engine,
    ):
        assert (engine.backend, engine.tolerance) == ("openvino-cpu-fp16", 0.03)
        assert engine(washer(0)).score == pytest.approx(reference(washer(0)).score, rel=engine.tolerance)


def test_low_precision_has_a_tolerance_and_full_precision_none() -> None:
    assert OpenVinoEngine(b"", 1, "f32").tolerance == OnnxRuntimeEngine(b"").tolerance == 0
    low = OpenVinoEngine(b"", 1, "bf16")
    assert (low.backend, low.tolerance) == ("openvino-cpu-bf16", 0.005)


def test_openvino_is_not_imported_with_the_engines() -> None:
    code = "import sys, calibration.api, agent.station.run; sys.exit('openvino' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - fixed words


def test_without_openvino_its_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="OpenVINO cannot be loaded") as refusal, OpenVinoEngine(b""):
        pass
    assert "pip install" in refusal.value.remedy


def test_a_process_that_may_not_compile_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    require_compiling()
    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(EngineError, match="compiles the network") as refusal:
        require_compiling()
    assert "MemoryDenyWriteExecute=no" in refusal.value.remedy


def test_a_gpu_that_is_not_there_is_an_error(learnt: Bundle) -> None:
    need_openvino()
    if "GPU" in library().Core().available_devices:
        pytest.skip("there is one")
    with (
        pytest.raises(EngineError, match="cannot load the network"),
        OpenVinoEngine(learnt.network, 1, "as in the network", "gpu"),
    ):
        pass


def test_openvino_reports_a_network_that_is_gone_and_an_error_without_words(tmp_path: Path) -> None:
    need_openvino()
    with pytest.raises(EngineError, match=r"cannot load the network: .*No such file"):
        OpenVinoEngine(tmp_path / "gone.onnx", 1).__enter__()
    assert _reason(RuntimeError("")) == "RuntimeError"
