"""TensorRT's Python library: found when it is needed, and what it says when something fails."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import tensorrt as trt

log = logging.getLogger(__name__)

OLDEST = (10, 3)
_LINES_KEPT = 20


def library() -> ModuleType:
    """The module ``tensorrt``.

    Raises:
        EngineError: It is missing, cannot be loaded, or is older than 10.3.
    """
    try:
        import tensorrt  # noqa: PLC0415 - absent on most machines
    except (ImportError, OSError) as error:  # OSError: a library of its own is missing, as on thin JetPacks
        raise EngineError(
            what=f"TensorRT cannot be loaded: {error}",
            remedy="on a Jetson: apt install python3-libnvinfer, and make the environment with --system-site-packages; "
            "elsewhere: pip install 'shiftwatch[tensorrt]'",
        ) from error
    version: tuple[int, ...] = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            what=f"TensorRT {tensorrt.__version__} is too old: 10.3 is the oldest that builds our networks",
            remedy="update JetPack or TensorRT, or use onnxruntime",
        )
    found: ModuleType = tensorrt
    return found


@dataclass(frozen=True)
class Journal:
    """What TensorRT logs; ``errors`` are its latest, oldest first."""

    logger: trt.ILogger
    errors: deque[str]

    @contextmanager
    def explained(self, *, what: str, remedy: str) -> Iterator[None]:
        """Turn a refusal inside into an error that says why.

        Raises:
            EngineError: TensorRT could not make an object, or raised.
        """
        self.errors.clear()
        try:
            yield
        except (RuntimeError, TypeError) as error:  # pybind11 raises TypeError where TensorRT gives it nothing
            raise self.refusal(what=f"{what}: {error}", remedy=remedy) from error

    def refusal(self, *, what: str, remedy: str) -> EngineError:
        """The error to raise, with TensorRT's own last words."""
        said = f" (TensorRT says: {self.errors[-1]})" if self.errors else ""
        return EngineError(what=f"{what}{said}", remedy=remedy)


@cache
def journal(tensorrt: ModuleType) -> Journal:
    """The journal of this process: TensorRT keeps the first logger it meets for good."""
    errors: deque[str] = deque(maxlen=_LINES_KEPT)

    class Logger(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # its base is known on devices only
        """Passes errors and warnings on; TensorRT calls it from threads of its own."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            """Called by TensorRT."""
            if severity in {tensorrt.ILogger.INTERNAL_ERROR, tensorrt.ILogger.ERROR}:
                errors.append(msg)
                log.error("TensorRT: %s", msg)
            elif severity == tensorrt.ILogger.WARNING:
                log.warning("TensorRT: %s", msg)

    return Journal(Logger(), errors)
