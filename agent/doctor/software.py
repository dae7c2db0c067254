"""Checks the installed software: Python, OpenCV, the runtimes of the network and the GPU driver."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import onnxruntime as ort

from agent.doctor.finding import Finding, ok, warn_if
from agent.doctor.system import text_of
from calibration.deployment.backends import AUTO, choose_backend
from calibration.engine.cuda_choice import chosen_binding
from calibration.engine.cuda_driver import CudaDriver, cuda_driver
from calibration.engine.openvino import devices, library
from calibration.engine.tensorrt_library import LIBRARIES, TENSORRT_RTX
from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calibration.deployment.backends import BackendChoice
    from calibration.engine.cuda_driver import Gpu
    from calibration.engine.tensorrt_library import Library

_NVIDIA = "0x10de"
_PRECISIONS = ("FP32", "FP16", "BF16")


def python() -> Iterator[Finding]:
    """Report the versions of Shiftwatch and Python."""
    yield ok("shiftwatch", version("shiftwatch"))
    yield ok("Python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}")


def opencv() -> Iterator[Finding]:
    """Check OpenCV."""
    yield opencv_finding(cv2.__version__, cv2.getBuildInformation())


def opencv_finding(release: str, build: str) -> Finding:
    """Check whether OpenCV can read cameras and streams, from its build information."""
    backends = {"FFMPEG": "FFMPEG", "V4L2": "v4l/v4l2", "GStreamer": "GStreamer"}
    present = [name for name, key in backends.items() if re.search(rf"^\s+{key}:\s+YES", build, re.MULTILINE)]
    missing = [name for name in backends if name not in present]
    found = f"{release}, with {', '.join(present) or 'nothing'}" + (f"; without {', '.join(missing)}" * bool(missing))
    remedy = "streams and videos need FFMPEG, cameras need V4L2: pip install opencv-python-headless"
    # GStreamer is needed for pipelines only, and opening one without it gives a clear error.
    return warn_if(not {"FFMPEG", "V4L2"} <= set(present), "OpenCV", found, remedy)


def onnxruntime() -> Iterator[Finding]:
    """Check ONNX Runtime and list its providers."""
    providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    found = f"{ort.__version__}, providers: {', '.join(providers)}"
    both = is_installed("onnxruntime") and is_installed("onnxruntime-gpu")
    found += "; both onnxruntime and onnxruntime-gpu are installed" * both
    remedy = "they overwrite each other: uninstall both with pip, then install the one you need"
    yield warn_if(both, "ONNX Runtime", found, remedy)


def openvino() -> Iterator[Finding]:
    """Report the version of OpenVINO, and the processors that it can use."""
    if importlib.util.find_spec("openvino") is None:
        yield ok("OpenVINO", f"not installed; it is faster for some networks: {install_extra('openvino')}")
        return
    try:
        precisions = {name: [each for each in _PRECISIONS if each in can] for name, can in devices()}
        found = "; ".join(f"{name}: {', '.join(each)}" for name, each in precisions.items())
        yield ok("OpenVINO", f"{library().__version__.partition('-')[0]}, {found}")
    except EngineError as error:
        yield Finding("OpenVINO", "warning", error.what, error.remedy)


def is_installed(package: str) -> bool:
    """Whether pip has installed a package."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def gpu() -> Iterator[Finding]:
    """Check CUDA driver, GPU and TensorRT, and report what ``engine.backend: auto`` selects."""
    choice = choose_backend(AUTO)
    try:
        driver = cuda_driver()
    except EngineError as error:
        yield no_gpu_finding(error, is_there=has_nvidia(Path("/")))
        yield tensorrt_finding(choice, None)
    else:
        yield gpu_finding(driver)
        yield tensorrt_finding(choice, driver.gpus[0])
    best = choice.available[0]
    selected = best if best != "openvino" else "openvino or onnxruntime, whichever is faster for the bundle"
    yield ok("backend", f"auto selects {selected} ({choice.reason})")


def gpu_finding(driver: CudaDriver) -> Finding:
    """Report the GPUs of a working driver."""
    gpus = (
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.1f} GiB"
        for gpu in driver.gpus
    )
    major, minor = driver.version
    return ok("NVIDIA GPU", f"{'; '.join(gpus)}; driver for CUDA {major}.{minor}")


def no_gpu_finding(error: EngineError, *, is_there: bool) -> Finding:
    """Warn if the device has a GPU that cannot be used."""
    if is_there:
        return Finding("NVIDIA GPU", "warning", f"present, but cannot be used: {error.what}", error.remedy)
    return ok("NVIDIA GPU", f"none ({error.what}); the network runs on the CPU")


def has_nvidia(root: Path) -> bool:
    """Whether this is a Jetson, or has an NVIDIA graphics card."""
    if (root / "etc/nv_tegra_release").exists():
        return True
    devices = (root / "sys/bus/pci/devices").glob("*")
    return any(
        text_of(device / "vendor") == _NVIDIA and text_of(device / "class").startswith("0x03") for device in devices
    )


def tensorrt_finding(choice: BackendChoice, gpu: Gpu | None) -> Finding:
    """Check which of NVIDIA's libraries is installed and why not used, without an import: it may crash."""
    binding, how = _binding()
    if gpu is None:
        rtx = f"{TENSORRT_RTX.name} builds engines for other machines: shiftwatch-calibrate build --for rtx"
        found = "; ".join([*map(_installed, LIBRARIES), binding]) + "; only useful with an NVIDIA GPU"
        return ok("TensorRT", f"{found}; {rtx}" if TENSORRT_RTX.module else found)
    obstacles = {library: choice.obstacles[library.backend] for library in LIBRARIES}
    used = [
        f"{_installed(library)}, for {gpu.name}, through {binding}"
        for library, obstacle in obstacles.items()
        if obstacle is None
    ]
    unused = [f"{library.name} not used: {obstacle}" for library, obstacle in obstacles.items() if obstacle is not None]
    installs = "; ".join([*(f"{library.name}: {library.install}" for library in LIBRARIES), *how])
    return warn_if(not used, "TensorRT", "; ".join([*used, *unused]), f"the GPU is fastest with it: {installs}")


def _binding() -> tuple[str, list[str]]:
    """The package through which the GPU is used, and how to install one if there is none."""
    try:
        package = chosen_binding().package
    except EngineError as error:
        return "neither pycuda nor cuda-bindings", [f"CUDA for Python: {error.remedy}"]
    return f"{package} {version_of(package)}", []


def _installed(library: Library) -> str:
    if library.module is None:
        return f"{library.name} not installed"
    (package,) = packages_distributions().get(library.module, [library.module])[:1]
    return f"{library.name} {version_of(package)}"


def version_of(package: str) -> str:
    """Version of a package; Debian's packages may lack it."""
    return version(package) if is_installed(package) else "of unknown version"
