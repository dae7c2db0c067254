"""Chooses the package through which the GPU is used: pycuda, else NVIDIA's cuda-bindings, which need no compiler."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.engine.cuda_bindings import CudaBindings
from calibration.engine.cuda_pycuda import PyCuda
from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.engine.cuda import Cuda


@dataclass(frozen=True, slots=True)
class Binding:
    """A package with CUDA's functions.

    Attributes:
        package: Its name for pip.
        module: Its module.
        open: Creates the GPU without entering it.
    """

    package: str
    module: str
    open: Callable[[], Cuda]

    @property
    def installed(self) -> bool:
        """Whether its module is there; it is not imported."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # not even the package that the module is in
            return False


BINDINGS = (Binding("pycuda", "pycuda", PyCuda), Binding("cuda-bindings", "cuda.bindings", CudaBindings))
"""The preferred one first."""


def chosen_binding() -> Binding:
    """The first one installed.

    Raises:
        EngineError: None is.
    """
    for binding in BINDINGS:
        if binding.installed:
            return binding
    raise EngineError(
        what="neither of the Python packages pycuda and cuda-bindings is installed",
        remedy="on a device with an NVIDIA GPU: pip install pycuda (it needs CUDA's compiler, nvcc) or, without nvcc, "
        f"{install_extra('cuda-bindings')}; otherwise use onnxruntime",
    )


def open_cuda() -> Cuda:
    """The GPU, not entered, through the first package installed.

    Raises:
        EngineError: None is.
    """
    return chosen_binding().open()
