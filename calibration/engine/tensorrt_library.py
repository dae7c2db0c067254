"""NVIDIA's two libraries with one interface: imported when needed, and their failures turned into errors.

TensorRT builds an engine on the GPU that runs it, in minutes. TensorRT for RTX builds ahead of time, on any machine and
in a second or two, and compiles for the GPU when the engine is loaded. All that differs follows from their `Library`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from calibration.errors import EngineError, install_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import tensorrt as trt

log = logging.getLogger(__name__)

_ERRORS_KEPT = 20


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two libraries.

    Attributes:
        name: Its name for people.
        backend: Its name in configurations and messages, and the suffix of its engine folders.
        modules: Names under which its Python module is installed, preferred first.
        oldest: The oldest version that works, major and minor.
        extra: Extra of this project that installs it.
        platform: Where that works, and what does elsewhere; for people.
        compute_capabilities: Those for which it builds ahead of time, without a GPU. Empty if it builds for the GPU of
            this machine alone; only such an engine can be given another head.
    """

    name: str
    backend: str
    modules: tuple[str, ...]
    oldest: tuple[int, int]
    extra: str
    platform: str
    compute_capabilities: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """How to install it, for people."""
        return f"{self.platform}: {install_extra(self.extra)}"

    @property
    def builds_ahead(self) -> bool:
        """Whether it builds ahead of time, in a second or two, for GPUs that this machine need not have."""
        return bool(self.compute_capabilities)

    @property
    def build_command(self) -> str:
        """The command that builds the engine of a bundle."""
        return "shiftwatch-calibrate build BUNDLE" + " --for rtx" * self.builds_ahead

    @property
    def module(self) -> str | None:
        """Name of its installed module, found without an import, which can crash without a driver; None without one."""
        return next((name for name in self.modules if importlib.util.find_spec(name) is not None), None)

    @property
    def product(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.imported().__version__}"

    def imported(self) -> ModuleType:
        """Its module, imported now if it was not before.

        Raises:
            EngineError: It is missing, cannot be loaded, or is too old.
        """
        try:
            module = importlib.import_module(self.module or self.modules[-1])
        except (ImportError, OSError) as error:  # OSError: one of its own libraries is missing, as on minimal JetPacks
            raise EngineError(what=f"{self.name} cannot be loaded: {error}", remedy=self.install) from error
        if tuple(int(part) for part in module.__version__.split(".")[:2]) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise EngineError(
                what=f"{self.name} {module.__version__} is too old: Shiftwatch needs {oldest} or newer",
                remedy="update it (TensorRT with JetPack on a Jetson), or use onnxruntime",
            )
        return module


TENSORRT = Library(
    name="TensorRT",
    backend="tensorrt",
    modules=("tensorrt",),
    oldest=(10, 3),
    extra="tensorrt",
    platform="on a Jetson: apt install python3-libnvinfer, and an environment with --system-site-packages; elsewhere",
)
TENSORRT_RTX = Library(
    name="TensorRT for RTX",
    backend="tensorrt_rtx",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    oldest=(1, 7),
    extra="rtx",
    platform="on x86-64 Linux",
    compute_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"),
)
LIBRARIES = (TENSORRT, TENSORRT_RTX)


@dataclass(frozen=True)
class Journal:
    """A library's logger and its latest error messages, oldest first."""

    library: Library
    logger: trt.ILogger
    errors: deque[str]

    @contextmanager
    def explained(self, *, what: str, remedy: str) -> Iterator[None]:
        """Translate the library's exceptions.

        Raises:
            EngineError: It raised, or could not create an object.
        """
        self.errors.clear()
        try:
            yield
        except (RuntimeError, TypeError) as error:  # pybind11 raises TypeError if TensorRT returns nothing
            raise self.error(what=f"{what}: {error}", remedy=remedy) from error

    def error(self, *, what: str, remedy: str) -> EngineError:
        """The error to raise, with the library's latest message."""
        reason = f" ({self.library.name} says: {self.errors[-1]})" if self.errors else ""
        return EngineError(what=f"{what}{reason}", remedy=remedy)


def process_journal(library: Library) -> Journal:
    """The one journal of a library in this process: it keeps the first logger it gets for good."""
    return _journal(library, library.imported())


@cache
def _journal(library: Library, tensorrt: ModuleType) -> Journal:
    errors: deque[str] = deque(maxlen=_ERRORS_KEPT)

    class Logger(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # the base class exists on devices only
        """Passes on errors and warnings; TensorRT calls it from its own threads."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            """Called by TensorRT."""
            if severity in {tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR}:
                errors.append(msg)
                log.error("%s: %s", library.name, msg)
            elif severity == tensorrt.ILogger.WARNING:
                log.warning("%s: %s", library.name, msg)

    return Journal(library, Logger(), errors)
