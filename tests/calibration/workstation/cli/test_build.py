"""``shiftwatch-calibrate build`` and the acceptance run on a device, as a person meets them, on the fake GPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import fake_pycuda, fake_tensorrt
from tests.support.fake_gpu import DESKTOP, ORIN, FakeCuda
from tests.support.outcome import assert_refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from calibration.bundle.bundle import Bundle
    from calibration.engine.cuda_driver import Gpu
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

ON_DEVICE = Path(__file__).resolve().parents[3] / "on_device.py"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Any:  # noqa: ANN401
    """A machine with pycuda and TensorRT."""
    fake_pycuda.install(monkeypatch, cuda)
    return fake_tensorrt.install(monkeypatch, cuda)


def test_build_makes_the_engine_once_and_proves_it(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    first = command("build", bundle.path)
    assert first.code == 0
    assert f"engine in {bundle.path}.tensorrt: built (no engine in" in first.words
    assert "golden frames score as calibrated" in first.words
    assert "Building" in first.err
    second = command("build", bundle.path)
    assert "kept from before" in second.words
    assert len(device.builds) == 1


def test_all_options_reach_the_build(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    options = "--workspace-mib 256 --tactic-memory-mib 512 --optimisation-level 1"
    assert command("build", bundle.path, *options.split()).code == 0
    record = json.loads((Path(f"{bundle.path}.tensorrt") / "engine.json").read_text())
    assert record["key"]["options"] == {"workspace_mib": 256, "tactic_memory_mib": 512, "optimisation_level": 1}
    assert device.builds[0].builder_optimization_level == 1


def test_an_engine_that_scores_otherwise_is_refused(command: Command, device: Any, bundle: Bundle) -> None:  # noqa: ANN401
    device.roundings = [1.1]
    assert_refused(command("build", bundle.path), r"tensorrt on this device scores golden frame \d", "do not inspect")


def test_build_without_a_gpu_says_so(command: Command, learnt: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    outcome = command("build", learnt.path)
    assert_refused(outcome, "pycuda is not installed", "use onnxruntime")


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch, learnt: Bundle, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Runs the acceptance run; gives its exit code and its JSON."""
    specification = importlib.util.spec_from_file_location("on_device", ON_DEVICE)
    assert specification is not None
    assert specification.loader is not None
    module: ModuleType = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "RANDOM_FRAMES", 8)
    monkeypatch.setattr(module, "TIMED_RUNS", 5)

    def run() -> tuple[int, Any]:
        out = tmp_path / "on_device.json"
        monkeypatch.setattr(sys, "argv", ["on_device.py", str(learnt.path), "--out", str(out)])
        return module.main(), json.loads(out.read_text()) if out.exists() else None

    return run


@pytest.mark.parametrize(("gpu", "timed"), [(ORIN, {"copied", "mapped"}), (DESKTOP, {"copied"})])
def test_the_acceptance_run_measures_everything(
    on_device: Callable[..., tuple[int, Any]],
    device: Any,  # noqa: ANN401
    gpu: Gpu,
    timed: set[str],
) -> None:
    device.cuda.gpu = gpu
    code, result = on_device()
    assert (code, result["problems"]) == (0, [])
    assert result["differences"]["score"] < 1e-5
    assert result["exchange"]["enough"]
    assert result["exchange"]["differences"]["score"] < 1e-5
    assert result["loaded_again"]["built"] is None
    assert timed == {"copied", "mapped"} & set(result)
    assert all(result[name]["p50_ms"] <= result[name]["p99_ms"] for name in timed)
    assert result["build_memory"]["free_lowest_bytes"] <= result["build_memory"]["free_before_bytes"]
    assert result["peak_resident_bytes"] > 1 << 20
    assert result["tensorrt"] == "10.3.0"


@pytest.mark.parametrize(
    ("roundings", "what"),
    [([1.1], "engine: the score differs"), ([1.0, 1.1], "new head: the score differs")],
)
def test_the_acceptance_run_finds_a_score_that_differs(
    on_device: Callable[..., tuple[int, Any]],
    device: Any,  # noqa: ANN401
    roundings: list[float],
    what: str,
) -> None:
    device.roundings = roundings
    code, result = on_device()
    assert code == 1
    assert what in "; ".join(result["problems"])


def test_the_acceptance_run_notices_that_the_head_could_not_be_exchanged(
    on_device: Callable[..., tuple[int, Any]],
    device: Any,  # noqa: ANN401
) -> None:
    device.refuse = {"mark"}
    code, result = on_device()
    assert code == 1
    assert result["problems"] == ["the head could not be replaced; the engine was rebuilt"]
