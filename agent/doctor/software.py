"""What is installed: Python, OpenCV, ONNX Runtime, TensorRT, and the GPU under them."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import onnxruntime as ort

from agent.doctor.finding import Finding, ok
from agent.doctor.system import text_of
from calibration.deployment.backends import AUTO, choose_backend
from calibration.engine.cuda_driver import CudaDriver, cuda_driver
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NVIDIA = "0x10de"


def python() -> Iterator[Finding]:
    """Shiftwatch and Python."""
    yield ok("shiftwatch", version("shiftwatch"))
    yield ok("Python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}")


def opencv() -> Iterator[Finding]:
    """OpenCV, and what it can read from."""
    yield opencv_finding(cv2.__version__, cv2.getBuildInformation())


def opencv_finding(release: str, build: str) -> Finding:
    """From what OpenCV says of how it was built."""
    backends = {"FFMPEG": "FFMPEG", "V4L2": "v4l/v4l2", "GStreamer": "GStreamer"}
    present = [name for name, key in backends.items() if re.search(rf"^\s+{key}:\s+YES", build, re.MULTILINE)]
    missing = [name for name in backends if name not in present]
    found = f"{release}, with {', '.join(present) or 'nothing'}" + (f"; without {', '.join(missing)}" * bool(missing))
    if "FFMPEG" in present and "V4L2" in present:
        return ok("OpenCV", found)  # GStreamer is for pipelines only; a camera that needs it says so
    remedy = "streams and videos need FFMPEG, cameras V4L2: pip install opencv-python-headless"
    return Finding("OpenCV", "warning", found, remedy)


def onnxruntime() -> Iterator[Finding]:
    """ONNX Runtime, and what it can compute on."""
    providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    found = f"{ort.__version__}, providers: {', '.join(providers)}"
    if is_installed("onnxruntime") and is_installed("onnxruntime-gpu"):
        remedy = "they overwrite each other: pip uninstall both, then install the one you want"
        yield Finding("ONNX Runtime", "warning", f"{found}; both onnxruntime and onnxruntime-gpu are installed", remedy)
    else:
        yield ok("ONNX Runtime", found)


def is_installed(package: str) -> bool:
    """Whether pip knows it."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def gpu() -> Iterator[Finding]:
    """CUDA driver, GPU and TensorRT, and what ``engine.backend: auto`` makes of them."""
    try:
        driver = cuda_driver()
    except EngineError as error:
        yield no_gpu_finding(error, is_there=has_nvidia(Path("/")))
        yield tensorrt_finding(needed=False)
    else:
        yield gpu_finding(driver)
        yield tensorrt_finding(needed=True)
    choice = choose_backend(AUTO)
    yield ok("backend", f"auto takes {choice.available[0]}: {choice.reason}")


def gpu_finding(driver: CudaDriver) -> Finding:
    """A GPU that answers."""
    gpus = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.1f} GiB"
        for gpu in driver.gpus
    )
    major, minor = driver.version
    return ok("NVIDIA GPU", f"{'; '.join(gpus)}; driver for CUDA {major}.{minor}")


def no_gpu_finding(error: EngineError, *, is_there: bool) -> Finding:
    """No GPU is nothing to mend on a device that has none."""
    if is_there:
        return Finding("NVIDIA GPU", "warning", f"there is one, but {error.what}", error.remedy)
    return ok("NVIDIA GPU", f"none ({error.what}); the network runs on the CPU")


def has_nvidia(root: Path) -> bool:
    """Whether this is a Jetson, or an NVIDIA graphics card is plugged in."""
    if (root / "etc/nv_tegra_release").exists():
        return True
    devices = (root / "sys/bus/pci/devices").glob("*")
    return any(
        text_of(device / "vendor") == _NVIDIA and text_of(device / "class").startswith("0x03") for device in devices
    )


def tensorrt_finding(*, needed: bool) -> Finding:
    """TensorRT and pycuda; only looked for, since to import them without a driver can crash."""
    missing = [name for name in ("tensorrt", "pycuda") if importlib.util.find_spec(name) is None]
    if not missing:
        return ok("TensorRT", f"{version_of('tensorrt')}, pycuda {version_of('pycuda')}")
    found = f"not installed: {' and '.join(missing)}"
    if not needed:
        return ok("TensorRT", f"{found}; it needs an NVIDIA GPU")
    remedy = "the GPU is fastest with it: pip install '.[tensorrt]'; on a Jetson use the system's TensorRT, in an "
    return Finding("TensorRT", "warning", found, f"{remedy}environment made with --system-site-packages")


def version_of(package: str) -> str:
    """As pip knows it; Debian's packages may not tell."""
    return version(package) if is_installed(package) else "of unknown version"
