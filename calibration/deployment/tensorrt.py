"""What a bundle's TensorRT engine is built from, and where it is kept."""

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


_FLAVOUR = "half precision 1"  # increase the number whenever the output of `half_precision` changes


def engine_folder(bundle: Bundle) -> Path:
    """The folder next to the bundle, which itself is never changed: ``washers.tensorrt`` for ``washers``."""
    path = bundle.path.absolute()
    return path.with_name(f"{path.name}.tensorrt")


def source_of(bundle: Bundle) -> Source:
    """The bundle's network with its backbone in half precision."""

    def read() -> bytes:
        # Slow to import, and needed only to build an engine.
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
    """The engine of a bundle, not yet entered. Entering builds it if no usable one is kept.

    Args:
        bundle: Bundle whose network runs.
        options: Build options; None takes those of the kept engine.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to stop a build early.
    """
    return TensorRTEngine(source_of(bundle), engine_folder(bundle), options, progress=progress, cancel=cancel)
