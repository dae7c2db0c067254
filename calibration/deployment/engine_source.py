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


def engine_folder(bundle: Bundle, backend: str) -> Path:
    """The folder next to the bundle, which itself is never changed: ``washers.tensorrt`` for ``washers``."""
    path = bundle.path.absolute()
    return path.with_name(f"{path.name}.{backend}")


def fastest_file(bundle: Bundle) -> Path:
    """The file next to the bundle that keeps which engine is fastest on the processor: ``washers.fastest.json``."""
    path = bundle.path.absolute()
    return path.with_name(f"{path.name}.fastest.json")


def source_of(bundle: Bundle) -> Source:
    """The bundle's network with its backbone in half precision."""

    def read() -> bytes:
        # Slow to import, and needed only to build an engine.
        import onnx  # noqa: PLC0415

        from calibration.network.half_precision import half_precision  # noqa: PLC0415

        return half_precision(onnx.load(bundle.network)).SerializeToString()

    return Source(sha256(f"{bundle.manifest.files[NETWORK]} {_FLAVOUR}".encode()).hexdigest(), read)
