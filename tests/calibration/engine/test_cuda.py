"""CUDA by pycuda and by cuda-bindings: memory is copied, mapped and released, and what is missing is said clearly."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.bundle.bundle import check_golden
from calibration.deployment.engine_source import source_of
from calibration.engine.cuda_bindings import CudaBindings
from calibration.engine.cuda_choice import BINDINGS, chosen_binding, open_cuda
from calibration.engine.cuda_driver import cuda_driver
from calibration.engine.cuda_pycuda import PyCuda
from calibration.engine.tensorrt import TensorRTEngine
from calibration.errors import EngineError, install_extra
from tests.support import fake_cuda_bindings, fake_pycuda, fake_tensorrt
from tests.support.fake_gpu import ORIN, FakeCuda

if TYPE_CHECKING:
    from types import ModuleType

    from calibration.bundle.bundle import Bundle
    from calibration.engine.cuda import Cuda

    Driver = fake_pycuda.Driver | fake_cuda_bindings.Driver

PROJECT = Path(__file__).resolve().parents[3]


# What the tests call broken -> the function of each package.
FUNCTIONS = {
    fake_pycuda: {
        "start": "init",
        "context": "push",
        "stream": "Stream",
        "pin": "pagelocked_empty",
        "allocate": "mem_alloc",
        "upload": "memcpy_htod_async",
        "download": "memcpy_dtoh_async",
        "wait": "synchronize",
        "free memory": "mem_get_info",
    },
    fake_cuda_bindings: {
        "start": "cuInit",
        "context": "cuCtxPushCurrent",
        "stream": "cuStreamCreate",
        "pin": "cuMemHostAlloc",
        "allocate": "cuMemAlloc",
        "upload": "cuMemcpyHtoDAsync",
        "download": "cuMemcpyDtoHAsync",
        "wait": "cuStreamSynchronize",
        "free memory": "cuMemGetInfo",
    },
}
KINDS: dict[ModuleType, type[PyCuda | CudaBindings]] = {fake_pycuda: PyCuda, fake_cuda_bindings: CudaBindings}
REASONS = {fake_pycuda: "{} failed: no such luck", fake_cuda_bindings: "{}: out of memory (2)"}


class Missing:
    """Finds none of these modules."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def find_spec(self, name: str, *_: object) -> None:
        if name in self._names:
            message = f"No module named {name!r}"
            raise ModuleNotFoundError(message)


@pytest.fixture(params=[fake_pycuda, fake_cuda_bindings], ids=["pycuda", "cuda-bindings"])
def package(request: pytest.FixtureRequest) -> ModuleType:
    kind: ModuleType = request.param
    return kind


@pytest.fixture
def driver(package: ModuleType, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Driver:
    installed: Driver = package.install(monkeypatch, cuda)
    return installed


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> fake_cuda_bindings.Driver:
    return fake_cuda_bindings.install(monkeypatch, cuda)


def test_the_installed_package_is_chosen(driver: Driver, package: ModuleType) -> None:
    assert type(open_cuda()) is KINDS[package]
    assert driver.contexts == 0


@pytest.mark.usefixtures("bindings")
def test_pycuda_is_the_first_choice(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    fake_pycuda.install(monkeypatch, cuda)
    assert chosen_binding().package == "pycuda"


@pytest.mark.parametrize("absent", ["cuda", "cuda.bindings"])
def test_without_either_package_both_ways_to_install_are_said(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    monkeypatch.setattr(sys, "meta_path", [Missing("pycuda", absent), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] in {"pycuda", "cuda"}]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EngineError) as error:
        open_cuda()
    assert "neither of the Python packages pycuda and cuda-bindings is installed" in str(error.value)
    assert "pip install pycuda" in error.value.remedy
    assert install_extra("cuda-bindings") in error.value.remedy


def test_a_gpu_describes_itself(driver: Driver) -> None:
    driver.cuda.gpu = ORIN
    with open_cuda() as cuda:
        assert cuda.gpu == ORIN
        assert cuda.stream == driver.cuda.stream
        assert cuda.free_bytes() == ORIN.memory_bytes


def test_an_array_copied_to_the_gpu_comes_back_unchanged(driver: Driver) -> None:
    shape, dtype = (2, 3), np.dtype(np.float32)
    with open_cuda() as cuda:
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


@pytest.mark.usefixtures("driver")
def test_mapped_memory_has_an_address_on_the_gpu(cuda: FakeCuda) -> None:
    with open_cuda() as opened:
        memory = opened.pinned((4,), np.dtype(np.uint8), mapped=True)
        assert memory.address is not None
        cuda.write(memory.address, np.arange(4, dtype=np.uint8))
        assert memory.array.tolist() == [0, 1, 2, 3]
        memory.release()


@pytest.mark.parametrize("broken", ["start", "context", "stream"])
def test_a_driver_that_fails_at_the_start_is_a_clear_error(driver: Driver, package: ModuleType, broken: str) -> None:
    function = FUNCTIONS[package][broken]
    driver.broken = {function}
    with pytest.raises(EngineError) as error:
        open_cuda().__enter__()
    assert error.value.what == f"cannot open the GPU: {REASONS[package].format(function)}"
    assert (driver.contexts, driver.cuda.entered) == (0, False)


@pytest.mark.parametrize("broken", ["cuCtxPushCurrent", "cuStreamCreate"])
def test_a_context_that_cannot_be_used_is_given_back(bindings: fake_cuda_bindings.Driver, broken: str) -> None:
    bindings.broken = {broken}
    with pytest.raises(EngineError):
        open_cuda().__enter__()
    assert bindings.retained == 0


def test_a_driver_without_a_gpu_is_a_clear_error(driver: Driver) -> None:
    driver.devices = 0
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: the driver finds none\n.*nvidia-smi"):
        open_cuda().__enter__()


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("pin", "cannot pin 8.0 MiB of memory"),
        ("allocate", "cannot allocate 8.0 MiB of GPU memory"),
        ("upload", "cannot copy to the GPU"),
        ("download", "cannot copy from the GPU"),
        ("wait", "the GPU failed"),
        ("free memory", "cannot read the GPU's free memory"),
    ],
)
def test_every_later_failure_is_a_clear_error(driver: Driver, package: ModuleType, broken: str, what: str) -> None:
    def use(cuda: Cuda) -> None:
        pinned = cuda.pinned((2, 1 << 20), np.dtype(np.float32), mapped=False)
        device = cuda.device(8 << 20)
        cuda.upload(device, pinned)
        cuda.download(pinned, device)
        cuda.synchronise()
        cuda.free_bytes()

    opened = open_cuda()
    opened.__enter__()
    function = FUNCTIONS[package][broken]
    driver.broken = {function}
    with pytest.raises(EngineError) as error:
        use(opened)
    assert error.value.what == f"{what}: {REASONS[package].format(function)}"


def test_memory_that_cannot_be_mapped_is_given_back(bindings: fake_cuda_bindings.Driver) -> None:
    with open_cuda() as cuda:
        bindings.broken = {"cuMemHostGetDevicePointer"}
        with pytest.raises(EngineError, match="cannot pin"):
            cuda.pinned((4,), np.dtype(np.uint8), mapped=True)
        assert not bindings.cuda.living


def test_a_driver_older_than_cuda_bindings_is_a_clear_error(bindings: fake_cuda_bindings.Driver) -> None:
    bindings.absent = {"cuStreamCreate"}
    with pytest.raises(EngineError, match=r'GPU: cuStreamCreate: Function "cuStreamCreate" not found\n.*older'):
        open_cuda().__enter__()
    assert (bindings.contexts, bindings.retained) == (0, 0)


def test_pycuda_without_the_drivers_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary:
        def find_spec(self, name: str, *_: object) -> Any:  # noqa: ANN401
            if name.startswith("pycuda"):
                message = "libcuda.so.1: cannot open shared object file: No such file or directory"
                raise ImportError(message)

    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: libcuda.so.1: cannot open"):
        PyCuda().__enter__()


@pytest.mark.parametrize("kind", [PyCuda, CudaBindings])
def test_a_package_that_cannot_be_imported_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, kind: type[PyCuda | CudaBindings]
) -> None:
    for module in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=r"pycuda is not installed|cuda-bindings cannot be loaded: import of cuda"):
        kind().__enter__()


@pytest.mark.parametrize("mapped_s", [0.001, 0.003])
def test_the_whole_engine_runs_on_either_package(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, learnt: Bundle, tmp_path: Path, mapped_s: float
) -> None:
    fake_tensorrt.install(monkeypatch, driver.cuda)
    driver.cuda.gpu, driver.cuda.mapped_s = ORIN, mapped_s
    monkeypatch.setattr("calibration.engine.tensorrt.perf_counter", lambda: driver.cuda.clock_s)
    with TensorRTEngine(source_of(learnt), tmp_path / "e") as engine:
        check_golden(learnt, engine)
    assert driver.contexts == 0
    assert driver.cuda.events[-5:] == ["context gone", "engine gone", "runtime gone", "stream gone", "left"]


OPEN = """
import sys
from pathlib import Path
from calibration.bundle.bundle import open_bundle
from calibration.deployment.engine_source import engine_folder, source_of
from calibration.engine.tensorrt import TensorRTEngine
from calibration.errors import EngineError
bundle = open_bundle(Path(sys.argv[1]))
sys.modules.update(dict.fromkeys(sys.argv[2:]))
try:
    TensorRTEngine(source_of(bundle), engine_folder(bundle, "tensorrt")).__enter__()
except EngineError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("absent", "what"),
    [
        (["pycuda"], "no NVIDIA GPU can be used: "),
        (["pycuda", "cuda.bindings"], "neither of the Python packages pycuda and cuda-bindings is installed"),
    ],
)
def test_without_a_driver_opening_ends_in_a_clear_error_and_not_in_a_crash(
    learnt: Bundle, absent: list[str], what: str
) -> None:
    with suppress(EngineError):
        cuda_driver()
        pytest.skip("this machine has a CUDA driver; what is tested here is one without")
    if "cuda.bindings" not in absent and not BINDINGS[1].installed:
        assert not os.environ.get("CI"), "cuda-bindings, part of the extra dev, is not installed"
        pytest.skip("cuda-bindings is not installed: pip install --editable '.[cuda-bindings]'")
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", OPEN, learnt.path, *absent], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    error, remedy = ended.stdout.splitlines()
    assert error.startswith(what)
    assert "use onnxruntime" in remedy
