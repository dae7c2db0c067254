"""Imports TensorRT when it is needed, and turns its failures into errors with TensorRT's own message."""

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
_ERRORS_KEPT = 20


def library() -> ModuleType:
    """Import the module ``tensorrt``.

    Raises:
        EngineError: It is missing, cannot be loaded, or is older than 10.3.
    """
    try:
        import tensorrt  # noqa: PLC0415 - absent on most machines
    except (ImportError, OSError) as error:  # OSError: one of its own libraries is missing, as on minimal JetPacks
        raise EngineError(
            what=f"TensorRT cannot be loaded: {error}",
            remedy="on a Jetson: apt install python3-libnvinfer, and an environment with --system-site-packages; "
            "elsewhere: pip install '.[tensorrt]'",
        ) from error
    version: tuple[int, ...] = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            what=f"TensorRT {tensorrt.__version__} is too old: Shiftwatch needs 10.3 or newer",
            remedy="update JetPack or TensorRT, or use onnxruntime",
        )
    found: ModuleType = tensorrt
    return found


@dataclass(frozen=True)
class Journal:
    """TensorRT's logger and its latest error messages, oldest first."""

    logger: trt.ILogger
    errors: deque[str]

    @contextmanager
    def explained(self, *, what: str, remedy: str) -> Iterator[None]:
        """Translate TensorRT's exceptions.

        Raises:
            EngineError: TensorRT raised, or could not create an object.
        """
        self.errors.clear()
        try:
            yield
        except (RuntimeError, TypeError) as error:  # pybind11 raises TypeError if TensorRT returns nothing
            raise self.error(what=f"{what}: {error}", remedy=remedy) from error

    def error(self, *, what: str, remedy: str) -> EngineError:
        """The error to raise, with TensorRT's latest message."""
        reason = f" (TensorRT says: {self.errors[-1]})" if self.errors else ""
        return EngineError(what=f"{what}{reason}", remedy=remedy)


@cache
def process_journal(tensorrt: ModuleType) -> Journal:
    """The one journal of this process: TensorRT keeps the first logger it gets for good."""
    errors: deque[str] = deque(maxlen=_ERRORS_KEPT)

    class Logger(tensorrt.ILogger):  # type: ignore[misc, name-defined]  # the base class exists on devices only
        """Passes on errors and warnings; TensorRT calls it from its own threads."""

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
