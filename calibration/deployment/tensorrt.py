"""A bundle's network on TensorRT: what the engine is built from, and where it is kept."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from calibration.bundle.bundle import NETWORK
from calibration.engine.tensorrt import Source, TensorRTEngine
from calibration.progress import silent

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from calibration.bundle.bundle import Bundle
    from calibration.engine.tensorrt_build import BuildOptions
    from calibration.progress import Progress


_FLAVOUR = "half precision 1"  # another number whenever what half_precision makes of a network changes


def engine_folder(bundle: Bundle) -> Path:
    """Beside the bundle, because a bundle is never changed: ``washers`` has its engine in ``washers.tensorrt``."""
    path = bundle.path.absolute()
    return path.with_name(f"{path.name}.tensorrt")


def source_of(bundle: Bundle) -> Source:
    """The ONNX network that the engine is built from: the bundle's, with its backbone in half precision."""

    def read() -> bytes:
        # Slow to load, and needed only where an engine must be built.
        import onnx  # noqa: PLC0415

        from calibration.network.half_precision import half_precision  # noqa: PLC0415

        return half_precision(onnx.load(bundle.network)).SerializeToString()

    return Source(sha256(f"{bundle.manifest.files[NETWORK]} {_FLAVOUR}".encode()).hexdigest(), read)


def tensorrt_engine(
    bundle: Bundle,
    options: BuildOptions | None = None,
    *,
    progress: Progress = silent,
    cancel: Event | None = None,
) -> TensorRTEngine:
    """The engine of a bundle, not yet entered; entering builds it where none is kept that fits.

    Args:
        bundle: Whose network runs.
        options: Of the build; None takes those that the kept engine was built with.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to end a build early.
    """
    return TensorRTEngine(source_of(bundle), engine_folder(bundle), options, progress=progress, cancel=cancel)
