"""What a reader must know of the device that a measurement comes from; nothing that names its owner."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calibration.deployment.latency import processor_name
from calibration.engine.cuda_driver import cuda_driver

_PACKAGES = ("shiftwatch", "onnxruntime", "onnxruntime-gpu", "numpy", "onnx", "pycuda", "cuda-bindings")


def machine() -> dict[str, Any]:
    """The machine, its GPU and its driver."""
    driver = cuda_driver()
    gpu = driver.gpus[0]
    return {
        "model": _first_line(Path("/proc/device-tree/model")),
        "jetpack": _first_line(Path("/etc/nv_tegra_release")),
        "power_mode": _power_mode(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "gpu": asdict(gpu),
        "driver_cuda": ".".join(map(str, driver.version)),
    }


def packages() -> dict[str, str | None]:
    """Installed versions; None of one that is missing."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip("\0\n").splitlines()[0]
    except (OSError, IndexError):
        return None


def _power_mode() -> str | None:
    """The power mode of a Jetson, which limits its clock rates."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    answer = subprocess.run([program, "-q"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - found on the PATH
    return " ".join(answer.stdout.split()) or None
