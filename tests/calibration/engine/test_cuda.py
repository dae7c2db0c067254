"""CUDA by pycuda: memory is copied, mapped and released in order, and what is missing is said clearly."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.bundle.bundle import check_golden
from calibration.deployment.engine_source import source_of
from calibration.engine.cuda import PyCuda
from calibration.engine.tensorrt import TensorRTEngine
from calibration.errors import EngineError
from tests.support import fake_pycuda, fake_tensorrt
from tests.support.fake_gpu import ORIN, FakeCuda

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> fake_pycuda.Driver:
    return fake_pycuda.install(monkeypatch, cuda)


def test_a_gpu_describes_itself(driver: fake_pycuda.Driver) -> None:
    driver.cuda.gpu = ORIN
    with PyCuda() as cuda:
        assert cuda.gpu == ORIN
        assert cuda.stream == driver.cuda.stream
        assert cuda.free_bytes() == ORIN.memory_bytes


def test_an_array_copied_to_the_gpu_comes_back_unchanged(driver: fake_pycuda.Driver) -> None:
    shape, dtype = (2, 3), np.dtype(np.float32)
    with PyCuda() as cuda:
        there, back, device = (
            cuda.pinned(shape, dtype, mapped=False),
            cuda.pinned(shape, dtype, mapped=False),
            cuda.device(24),
        )
        there.array[:] = [[1, 2, 3], [4, 5, 6]]
        back.array[:] = 0
        cuda.upload(device, there)
        cuda.download(back, device)
        assert not back.array.any()
        cuda.synchronise()
        np.testing.assert_array_equal(back.array, there.array)
        assert there.address is None
        assert not driver.cuda.mapped
        for memory in (device, back, there):
            memory.release()
    assert driver.contexts == 0
    assert driver.cuda.events == ["released device", "released pinned", "released pinned", "stream gone", "left"]


def test_mapped_memory_has_an_address_on_the_gpu(driver: fake_pycuda.Driver) -> None:
    with PyCuda() as cuda:
        memory = cuda.pinned((4,), np.dtype(np.uint8), mapped=True)
        assert memory.address is not None
        driver.cuda.write(memory.address, np.arange(4, dtype=np.uint8))
        assert memory.array.tolist() == [0, 1, 2, 3]
        memory.release()


@pytest.mark.parametrize("broken", ["init", "push", "Stream"])
def test_a_driver_that_fails_at_the_start_is_a_clear_error(driver: fake_pycuda.Driver, broken: str) -> None:
    driver.broken = {broken}
    with pytest.raises(EngineError) as error:
        PyCuda().__enter__()
    assert error.value.what == f"cannot open the GPU: {broken} failed: no such luck"
    assert driver.contexts == 0


def test_a_driver_without_a_gpu_is_a_clear_error(driver: fake_pycuda.Driver) -> None:
    driver.devices = 0
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: the driver finds none\n.*nvidia-smi"):
        PyCuda().__enter__()


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("pagelocked_empty", r"cannot pin 8\.0 MiB of memory: pagelocked_empty failed"),
        ("mem_alloc", r"cannot allocate 8\.0 MiB of GPU memory"),
        ("memcpy_htod_async", "cannot copy to the GPU"),
        ("memcpy_dtoh_async", "cannot copy from the GPU"),
        ("synchronize", "the GPU failed"),
        ("mem_get_info", "cannot read the GPU's free memory"),
    ],
)
def test_every_later_failure_is_a_clear_error(driver: fake_pycuda.Driver, broken: str, what: str) -> None:
    def use(cuda: PyCuda) -> None:
        pinned = cuda.pinned((2, 1 << 20), np.dtype(np.float32), mapped=False)
        device = cuda.device(8 << 20)
        cuda.upload(device, pinned)
        cuda.download(pinned, device)
        cuda.synchronise()
        cuda.free_bytes()

    opened = PyCuda()
    opened.__enter__()
    driver.broken = {broken}
    with pytest.raises(EngineError, match=what):
        use(opened)


def test_pycuda_without_the_drivers_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary:
        def find_spec(self, name: str, *_: object) -> Any:  # noqa: ANN401
            if name.startswith("pycuda"):
                message = "libcuda.so.1: cannot open shared object file: No such file or directory"
                raise ImportError(message)

    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: libcuda.so.1: cannot open"):
        PyCuda().__enter__()


@pytest.mark.parametrize("mapped_s", [0.001, 0.003])
def test_the_whole_engine_runs_on_pycuda(
    driver: fake_pycuda.Driver, monkeypatch: pytest.MonkeyPatch, learnt: Bundle, tmp_path: Path, mapped_s: float
) -> None:
    fake_tensorrt.install(monkeypatch, driver.cuda)
    driver.cuda.gpu, driver.cuda.mapped_s = ORIN, mapped_s
    monkeypatch.setattr("calibration.engine.tensorrt.perf_counter", lambda: driver.cuda.clock_s)
    with TensorRTEngine(source_of(learnt), tmp_path / "e") as engine:
        check_golden(learnt, engine)
    assert driver.contexts == 0
    assert driver.cuda.events[-5:] == ["context gone", "engine gone", "runtime gone", "stream gone", "left"]


@pytest.fixture
def bare() -> None:
    """A machine without GPU and TensorRT."""
    if importlib.util.find_spec("pycuda") or importlib.util.find_spec("tensorrt"):
        pytest.skip("this machine has pycuda or TensorRT; what is tested here is one without")


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_without_driver_and_tensorrt_opening_ends_in_a_clear_error_and_not_in_a_crash(learnt: Bundle) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from calibration.bundle.bundle import open_bundle\n"
        "from calibration.deployment.engine_source import engine_folder, source_of\n"
        "from calibration.engine.tensorrt import TensorRTEngine\n"
        "from calibration.errors import EngineError\n"
        "bundle = open_bundle(Path(sys.argv[1]))\n"
        "try:\n    TensorRTEngine(source_of(bundle), engine_folder(bundle, 'tensorrt')).__enter__()\n"
        "except EngineError as error:\n    print(error)\n"
    )
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program, learnt.path], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("pycuda is not installed")
    assert "use onnxruntime" in ended.stdout
