"""What every engine does: load a bundle's network and score frames with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.imaging.preprocess import Image


@dataclass(frozen=True, slots=True)
class Inference:
    """Output of the network for one frame.

    Attributes:
        score: One number for the whole frame; the threshold applies to it.
        map: T2 at every location, (h, w), float32.
    """

    score: float
    map: NDArray[np.float32]


class Engine(Protocol):
    """Runs the fused network on one frame at a time.

    Order of calls: enter, any number of calls from one thread, exit. Entering loads the network and warms it up, so
    that the first frame takes no longer than the next.

    Attributes:
        backend: Name of runtime and processor, such as ``onnxruntime-cpu``.
        tolerance: Relative difference from calibration's scores that the engine's precision explains. It applies where
            it is larger than the bundle's own tolerance.
    """

    backend: str
    tolerance: float

    def __enter__(self) -> Self:
        """Load and warm up.

        Raises:
            EngineError: The runtime cannot load the network.
        """

    def __exit__(self, *_: object) -> None:
        """Release the runtime's memory."""

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame, (height, width, 3), uint8 BGR."""
