from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import onnxruntime as ort
import pytest

from calibration.bundle.bundle import check_golden
from calibration.deployment import fastest
from calibration.deployment.backends import Deployment, choose_backend, open_engine
from calibration.deployment.fastest import ENGINES, Key, Measured, engines_here, kept_or_measured
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import EngineError
from tests.calibration.engine.test_contract import need_openvino

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Inference
    from calibration.imaging.preprocess import Image


class Timed(OnnxRuntimeEngine):
    """Takes the given milliseconds of a fake clock for each frame; ``order`` has those of all frames.

    From the frame ``busy_from`` on, counted over all engines, everything takes ten times as long.
    """

    clock_ms: ClassVar[float] = 0.0
    order: ClassVar[list[float]] = []
    busy_from: ClassVar[int] = 10**9

    def __init__(self, bundle: Bundle, time_ms: float, *, error: float = 0.0, loads: bool = True) -> None:
        super().__init__(bundle.network, 1)
        self._time_ms, self._error, self._loads = time_ms, error, loads

    def __enter__(self) -> Self:
        if not self._loads:
            raise EngineError(what="it does not load\nat all", remedy="")
        return super().__enter__()

    def __call__(self, frame: Image) -> Inference:
        Timed.clock_ms += self._time_ms * (10 if len(Timed.order) >= Timed.busy_from else 1)
        Timed.order.append(self._time_ms)
        found = super().__call__(frame)
        return replace(found, score=found.score * (1 + self._error))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The engines of this machine, to be filled."""
    engines: dict[str, Any] = {}
    monkeypatch.setattr(fastest, "_measured_apart", lambda bundle, key: fastest._measured(bundle, key, engines))
    monkeypatch.setattr(fastest, "perf_counter", lambda: Timed.clock_ms / 1000)
    monkeypatch.setattr(Timed, "order", [])
    monkeypatch.setattr(fastest, "_not_kept", {})
    return engines


@pytest.mark.parametrize(
    ("times_ms", "best"),
    [
        ({"ONNX Runtime": 8.8, "OpenVINO": 8.5}, "ONNX Runtime"),
        ({"ONNX Runtime": 8.8, "OpenVINO": 7.8}, "OpenVINO"),
        ({"ONNX Runtime": 8.8, "OpenVINO": 8.5, "OpenVINO BF16": 4.4}, "OpenVINO BF16"),
        ({"ONNX Runtime": 10.0, "OpenVINO": 8.0, "OpenVINO BF16": 7.5}, "OpenVINO"),
        ({"ONNX Runtime": 2.5, "OpenVINO": 4.2, "OpenVINO BF16": 4.0}, "ONNX Runtime"),
        ({"OpenVINO": 5.0}, "OpenVINO"),
        ({}, None),
    ],
)
def test_a_less_exact_engine_must_be_clearly_faster(
    learnt: Bundle, times_ms: dict[str, float], best: str | None
) -> None:
    measured = Measured(key=Key.of(learnt, 1), times_ms=times_ms, refused={})
    assert measured.fastest(of_openvino=False) == best
    assert measured.prefers_openvino is (best is not None and best.startswith("OpenVINO"))


def test_what_is_named_is_chosen_among_openvinos_own(learnt: Bundle) -> None:
    both = Measured(
        key=Key.of(learnt, 1), times_ms={"ONNX Runtime": 1.0, "OpenVINO": 4.0, "OpenVINO BF16": 2.0}, refused={}
    )
    assert both.fastest(of_openvino=True) == "OpenVINO BF16"
    none = Measured(key=Key.of(learnt, 1), times_ms={"ONNX Runtime": 1.0}, refused={})
    assert none.fastest(of_openvino=True) is None


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ([("CPU", ["FP32", "INT8"])], {"ONNX Runtime", "OpenVINO"}),
        ([("CPU", ["FP32", "BF16"])], {"ONNX Runtime", "OpenVINO", "OpenVINO BF16"}),
        ([("CPU", ["FP32", "FP16"]), ("NPU", ["FP16"])], {"ONNX Runtime", "OpenVINO", "OpenVINO FP16"}),
        ([("CPU", ["FP32"]), ("GPU", ["FP32", "FP16"])], {"ONNX Runtime", "OpenVINO", "OpenVINO on the GPU"}),
    ],
)
def test_only_what_the_processor_is_made_for_is_measured(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[str, list[str]]], names: set[str]
) -> None:
    monkeypatch.setattr(fastest, "devices", lambda: found)
    assert {*engines_here()} == names


def test_engines_take_turns_and_those_with_other_scores_do_not_count(learnt: Bundle, here: dict[str, Any]) -> None:
    here |= {
        "ONNX Runtime": lambda bundle, _: Timed(bundle, 8.8),
        "OpenVINO": lambda bundle, _: Timed(bundle, 8.5),
        "OpenVINO BF16": lambda bundle, _: Timed(bundle, 4.4, error=0.2),
        "OpenVINO FP16": lambda bundle, _: Timed(bundle, 4.0, error=99.0),
        "OpenVINO on the GPU": lambda bundle, _: Timed(bundle, 4.4, loads=False),
    }
    measured = kept_or_measured(learnt, 1, None, may_measure=True)
    assert measured is not None
    assert measured.times_ms == pytest.approx({"ONNX Runtime": 8.8, "OpenVINO": 8.5})
    assert str(measured) == (
        "OpenVINO 8.5 ms, ONNX Runtime 8.8, OpenVINO BF16 refused (scores differ by 20.0%), OpenVINO FP16 refused "
        "(scores differ more than tenfold), OpenVINO on the GPU refused (it does not load); measured at the first start"
    )
    frames = len(learnt.golden().frames)
    assert Timed.order[4 * frames :][:8] == [8.8, 8.8, 8.5, 8.5] * 2


@pytest.mark.parametrize("busy_from", [42, 43, 46, 47])
def test_a_machine_that_becomes_busy_meanwhile_slows_all_engines(
    learnt: Bundle, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, busy_from: int
) -> None:
    monkeypatch.setattr(Timed, "busy_from", busy_from)
    here |= {
        "ONNX Runtime": lambda bundle, _: Timed(bundle, 4.0),
        "OpenVINO": lambda bundle, _: Timed(bundle, 2.0),
    }
    measured = kept_or_measured(learnt, 1, None, may_measure=True)
    assert measured is not None
    assert measured.times_ms["OpenVINO"] / measured.times_ms["ONNX Runtime"] == pytest.approx(0.5)


def test_a_slow_network_is_measured_a_few_times_only(learnt: Bundle, here: dict[str, Any]) -> None:
    here |= {"ONNX Runtime": lambda bundle, _: Timed(bundle, 700.0)}
    kept_or_measured(learnt, 1, None, may_measure=True)
    assert len(Timed.order) - len(learnt.golden().frames) == 2 * 5


def test_it_is_measured_once_and_kept(
    learnt: Bundle, here: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here["ONNX Runtime"] = lambda bundle, _: Timed(bundle, 8.0)
    file = tmp_path / "engines" / "washers.fastest.json"
    assert kept_or_measured(learnt, 1, file, may_measure=False) is None
    with caplog.at_level(logging.INFO):
        first = kept_or_measured(learnt, 1, file, may_measure=True)
        assert "measuring which engine is fastest" in caplog.text
    here.clear()
    assert first is not None
    assert kept_or_measured(learnt, 1, file, may_measure=False) == first


@pytest.mark.parametrize("damage", ["another version", "other threads", "half a file", "no file"])
def test_it_is_measured_again_when_something_changed_or_the_file_is_damaged(
    learnt: Bundle, here: dict[str, Any], tmp_path: Path, damage: str
) -> None:
    file, threads = tmp_path / "washers.fastest.json", 1
    here["ONNX Runtime"] = lambda bundle, _: Timed(bundle, 8.0)
    kept_or_measured(learnt, 1, file, may_measure=True)
    if damage == "another version":
        file.write_text(file.read_text().replace(ort.__version__, "1.0.0"))
    elif damage == "other threads":
        threads = 2
    elif damage == "half a file":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    here["ONNX Runtime"] = lambda bundle, _: Timed(bundle, 5.0)
    assert kept_or_measured(learnt, threads, file, may_measure=False) is None
    again = kept_or_measured(learnt, threads, file, may_measure=True)
    assert again is not None
    assert again.times_ms["ONNX Runtime"] == pytest.approx(5.0)
    assert Measured.model_validate_json(file.read_bytes()) == again


def test_what_cannot_be_kept_is_logged_and_used(
    learnt: Bundle, here: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here["ONNX Runtime"] = lambda bundle, _: Timed(bundle, 8.0)
    (tmp_path / "engines").write_text("a file where the folder should be")
    assert kept_or_measured(learnt, 1, tmp_path / "engines" / "a.json", may_measure=True) is not None
    assert "cannot be kept in" in caplog.text
    here.clear()
    again = kept_or_measured(learnt, 1, tmp_path / "engines" / "a.json", may_measure=True)
    assert again is not None
    assert again.times_ms, "this process remembers it"


def test_a_file_of_another_machine_that_cannot_be_replaced_hides_no_measurement(
    learnt: Bundle, here: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here["ONNX Runtime"] = lambda bundle, _: Timed(bundle, 8.0)
    file = tmp_path / "washers.fastest.json"
    other = Key.of(learnt, 1).model_copy(update={"processor": "another"})
    file.write_text(Measured(key=other, times_ms={"OpenVINO": 1.0}, refused={}).model_dump_json())

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fastest, "replace_file", read_only)
    measured = kept_or_measured(learnt, 1, file, may_measure=True)
    assert measured is not None
    assert kept_or_measured(learnt, 1, file, may_measure=False) == measured


def deployment(bundle: Bundle, folder: Path) -> Deployment:
    return Deployment(bundle, 1, folder.joinpath, lambda *_: None, fastest_file=folder / "washers.fastest.json")


def opened(name: str, wanted: Deployment) -> tuple[str, str]:
    with open_engine(choose_backend(name), wanted, lambda engine: check_golden(wanted.bundle, engine)) as best:
        return best.engine.backend, best.reason


def keep(wanted: Deployment, **times_ms: float) -> None:
    measured = Measured(
        key=Key.of(wanted.bundle, 1), times_ms={name.replace("_", " "): ms for name, ms in times_ms.items()}, refused={}
    )
    assert wanted.fastest_file is not None
    wanted.fastest_file.write_text(measured.model_dump_json())


def test_auto_takes_what_was_measured_to_be_faster_and_says_so(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_openvino()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    wanted = deployment(learnt, tmp_path)
    keep(wanted, ONNX_Runtime=8.0, OpenVINO=4.0)
    backend, reason = opened("auto", wanted)
    assert backend == "openvino-cpu"
    assert reason.endswith("OpenVINO 4.0 ms, ONNX Runtime 8.0; measured at the first start")
    keep(wanted, ONNX_Runtime=3.0, OpenVINO=4.0)
    backend, reason = opened("auto", wanted)
    assert backend == "onnxruntime-cpu"
    assert reason.endswith("ONNX Runtime 3.0 ms, OpenVINO 4.0; measured at the first start")
    named = opened("openvino", wanted)
    assert named[0] == "openvino-cpu"
    assert named[1].startswith("named in the configuration; ONNX Runtime 3.0 ms")
    assert opened("onnxruntime", wanted) == ("onnxruntime-cpu", "named in the configuration")


def test_nothing_is_measured_while_the_station_waits(learnt: Bundle, tmp_path: Path) -> None:
    need_openvino()
    wanted = replace(deployment(learnt, tmp_path), may_build=False)
    backend, reason = opened("auto", wanted)
    assert backend == "onnxruntime-cpu"
    assert "not measured yet" in reason
    assert opened("openvino", wanted)[0] == "openvino-cpu"
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_was_fastest_and_no_longer_scores_as_calibration_is_not_used(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need_openvino()
    wanted = deployment(learnt, tmp_path)
    keep(wanted, ONNX_Runtime=8.0, OpenVINO=4.0)
    monkeypatch.setitem(ENGINES, "OpenVINO", lambda bundle, _: Timed(bundle, 1.0, error=0.5))
    assert opened("auto", wanted)[0] == "onnxruntime-cpu"
    assert "the backend openvino cannot be used" in caplog.text


def test_where_openvino_may_not_run_at_all_naming_it_is_an_error(learnt: Bundle, tmp_path: Path) -> None:
    need_openvino()
    wanted = deployment(learnt, tmp_path)
    keep(wanted, ONNX_Runtime=8.0)
    with pytest.raises(EngineError, match="OpenVINO cannot run this network: ONNX Runtime 8"):
        opened("openvino", wanted)


@pytest.mark.slow
def test_a_real_measurement_has_every_engine_of_this_processor_or_why_not(learnt: Bundle, tmp_path: Path) -> None:
    need_openvino()
    wanted = deployment(learnt, tmp_path)
    backend, reason = opened("auto", wanted)
    assert wanted.fastest_file is not None
    measured = Measured.model_validate_json(wanted.fastest_file.read_bytes())
    assert {*measured.times_ms, *measured.refused} == {*engines_here()}
    assert {"ONNX Runtime", "OpenVINO"} <= {*measured.times_ms}
    assert reason.endswith(str(measured))
    assert backend.startswith("openvino" if measured.prefers_openvino else "onnxruntime")
    changed = wanted.fastest_file.stat().st_mtime_ns
    assert opened("auto", wanted) == (backend, reason)
    assert wanted.fastest_file.stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("crash", "why"),
    [
        ("os.kill(os.getpid(), 11)", "exit code -11"),
        ("sys.exit('no memory left')", "no memory left"),
        ("raise ImportError('libtbb.so.12 is missing')", "OpenVINO cannot be loaded: libtbb.so.12 is missing"),
    ],
)
def test_a_library_that_crashes_ends_the_measurement_alone_and_is_not_tried_again(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str, why: str
) -> None:
    need_openvino()
    (tmp_path / "openvino.py").write_text(f"import os, sys\n{crash}\n")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = deployment(learnt, tmp_path)
    backend, reason = opened("auto", wanted)
    assert backend == "onnxruntime-cpu"
    assert f"OpenVINO refused (it ended with {why})" in reason
    assert opened("auto", replace(wanted, may_build=False)) == (backend, reason)


def test_a_measurement_that_hangs_is_ended_and_tried_again_at_the_next_start(
    learnt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_openvino()
    monkeypatch.setattr(fastest, "_LIMIT_S", 0.01)
    wanted = deployment(learnt, tmp_path)
    backend, reason = opened("auto", wanted)
    assert (backend, reason.endswith("it cannot be measured which engine is fastest: TimeoutExpired")) == (
        "onnxruntime-cpu",
        True,
    )
    assert list(tmp_path.iterdir()) == []
