"""What a bundle's engine is built from, and where it is kept."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from calibration.bundle.bundle import NETWORK
from calibration.engine.tensorrt_kept import Source

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.bundle.bundle import Bundle


_FLAVOUR = "half precision 1"  # increase the number whenever the output of `half_precision` changes


def next_to(bundle: Bundle, suffix: str) -> Path:
    """A file or folder next to the bundle, which itself is never changed: ``washers.report.html`` for ``washers``."""
    path = bundle.path.absolute()
    return path.with_name(f"{path.name}.{suffix}")


def engine_folder(bundle: Bundle, backend: str) -> Path:
    """The folder of an engine: ``washers.tensorrt`` for ``washers``."""
    return next_to(bundle, backend)


def fastest_file(bundle: Bundle) -> Path:
    """The file that keeps which engine is fastest on the processor: ``washers.fastest.json``."""
    return next_to(bundle, "fastest.json")


def source_of(bundle: Bundle) -> Source:
    """The bundle's network with its backbone in half precision."""

    def read() -> bytes:
        # Slow to import, and needed only to build an engine.
        import onnx  # noqa: PLC0415

        from calibration.network.half_precision import half_precision  # noqa: PLC0415

        return half_precision(onnx.load(bundle.network)).SerializeToString()

    return Source(sha256(f"{bundle.manifest.files[NETWORK]} {_FLAVOUR}".encode()).hexdigest(), read)
