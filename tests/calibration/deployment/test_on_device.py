"""The acceptance run on a device, as a person starts it, on the fake GPU; what it writes to be sent back."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calibration.deployment import backends
from calibration.engine.cuda_driver import CudaDriver, cuda_driver
from calibration.errors import EngineError
from tests.support import acceptance, fake_cuda_bindings, fake_pycuda, fake_tensorrt, fake_tensorrt_rtx, this_machine
from tests.support.fake_gpu import DESKTOP, ORIN, FakeCuda

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle
    from calibration.engine.cuda_driver import Gpu

PROGRAM = Path(__file__).resolve().parents[2] / "on_device.py"


@dataclass
class Device:
    """A machine with TensorRT, TensorRT for RTX, pycuda and cuda-bindings, and the program."""

    world: Any
    program: Any
    bundle: Path
    out: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, *options: str) -> int:
        """The program's exit code."""
        arguments = ["on_device.py", str(self.bundle), "--out", str(self.out), *options]
        self.monkeypatch.setattr(sys, "argv", arguments)
        code: int = self.program.main()
        return code

    @property
    def result(self) -> Any:  # noqa: ANN401
        return json.loads(self.out.read_text())

    @property
    def page(self) -> str:
        return self.out.with_suffix(".html").read_text()

    @property
    def failed(self) -> list[str]:
        checks = [check for check in self.result["checks"] if not check["passed"]]
        return [f"{check['library']}: {check['check']}: {check['found']}" for check in checks]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, learnt: Bundle, tmp_path: Path) -> Device:
    fake_cuda_bindings.install(monkeypatch, cuda)
    fake_pycuda.install(monkeypatch, cuda)
    fake_tensorrt_rtx.install(monkeypatch, cuda)
    world = fake_tensorrt.install(monkeypatch, cuda)
    for module in (backends, this_machine):
        monkeypatch.setattr(module, "cuda_driver", lambda: CudaDriver((13, 0), (cuda.gpu,)))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    # Rounded weights are a difference, too.
    monkeypatch.setattr("calibration.network.half_precision.half_precision", lambda network: network)
    specification = importlib.util.spec_from_file_location("on_device", PROGRAM)
    assert specification is not None
    assert specification.loader is not None
    program = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(program)
    monkeypatch.setattr(acceptance, "RANDOM_FRAMES", 4)
    monkeypatch.setattr(program, "TIMED_RUNS", 5)
    return Device(world, program, learnt.path, tmp_path / "out.json", monkeypatch)


@pytest.mark.parametrize(("gpu", "kinds"), [(ORIN, {"copied", "mapped"}), (DESKTOP, {"copied"})])
def test_each_library_is_measured_and_all_is_on_the_page(
    device: Device, cuda: FakeCuda, gpu: Gpu, kinds: set[str]
) -> None:
    cuda.gpu = gpu
    assert device.run() == 0
    result = device.result
    assert not device.failed
    found = result["libraries"]["tensorrt"]
    assert found["version"] == "10.3.0"
    assert found["differences"]["score"] < 1e-5
    assert [found[f"head_{number}"]["by"] for number in (1, 2)] == ["new weights", "new weights"]
    assert list(found["bindings"]) == ["pycuda", "cuda-bindings"]
    for loaded in found["bindings"].values():
        assert {"copied", "mapped"} & set(loaded) == kinds
        assert all(loaded[kind]["p50_ms"] <= loaded[kind]["p99_ms"] for kind in kinds)
    assert found["build_memory"]["free_lowest_bytes"] <= found["build_memory"]["free_before_bytes"]
    assert found["peak_resident_bytes"] > 1 << 20
    assert "all checks passed" in device.page
    assert gpu.name in device.page
    assert "<script" not in device.page
    rtx = result["libraries"]["tensorrt_rtx"]
    if gpu is ORIN:
        assert "this is Orin" in rtx["not_run"]
        assert "this is Orin" in device.page
    else:
        assert rtx["compiled_s"] is not None
        assert rtx["kernels_bytes"] > 0
        assert rtx["head_1"]["by"] == "a build"


@pytest.mark.parametrize(
    ("roundings", "failed"),
    [
        ([1.1], ["score as ONNX Runtime: 10 %"]),
        ([1.0, 1.0, 1.0, 1.1], ["score as ONNX Runtime with head 1: 10 %"]),
        (
            [1.0] * 7 + [1.1],
            [
                "score as ONNX Runtime when loaded with pycuda: 10 %",
                "score the same with cuda-bindings and pycuda: 9 %",
            ],
        ),
    ],
)
def test_a_score_that_differs_is_found(device: Device, roundings: list[float], failed: list[str]) -> None:
    device.world.roundings = roundings
    assert device.run("--library", "tensorrt") == 1
    assert device.failed == [f"TensorRT: {each}" for each in failed]
    assert f"{len(failed)} check" in device.page
    assert "FAILED" in device.page


def test_a_head_that_needs_a_build_is_found(device: Device) -> None:
    device.world.refuse = {"mark"}
    assert device.run("--library", "tensorrt") == 1
    assert device.failed == ["TensorRT: take a new head without a build: a build"]
    assert "cannot be given the new head: TensorRT does not accept new weights for head." in device.page


def test_a_library_that_fails_does_not_keep_the_other_from_being_measured(device: Device) -> None:
    device.monkeypatch.setattr(fake_tensorrt_rtx.Builder, "build_serialized_network", lambda *_: None)
    assert device.run() == 1
    (failed,) = device.failed
    assert failed.startswith("TensorRT for RTX: end without an error: TensorRT for RTX 1.7.1.116 cannot build")
    assert "head_2" in device.result["libraries"]["tensorrt"]


def test_a_crash_leaves_what_was_found_before_it(device: Device) -> None:
    def crash() -> bool:
        raise KeyboardInterrupt

    device.world.enqueue = crash
    with pytest.raises(KeyboardInterrupt):
        device.run()
    assert device.failed == ["TensorRT: end without an error: the process died here"]
    assert "the process died here" in device.page


def test_the_one_library_that_is_asked_for_must_be_installed(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("pycuda", "cuda.bindings"):
        device.monkeypatch.setitem(sys.modules, module, None)
    assert device.run("--library", "tensorrt_rtx") == 2
    assert capsys.readouterr().err.startswith("cannot run here: ")
    assert not device.out.exists()


@pytest.mark.slow
def test_without_a_driver_it_ends_with_code_2_and_one_clear_line(learnt: Bundle, tmp_path: Path) -> None:
    try:
        cuda_driver()
    except EngineError:
        pass
    else:
        pytest.skip("this machine has a GPU")
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, PROGRAM, learnt.path, "--out", tmp_path / "out.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("cannot run here: no CUDA driver")
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
