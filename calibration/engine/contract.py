"""Engines run the fused network. One protocol; each runtime has its own module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.imaging.preprocess import Image


@dataclass(frozen=True, slots=True)
class Inference:
    """What the network says of one frame.

    Attributes:
        score: The distances of all places made one; the threshold applies to it.
        map: T2 at every location, (h, w), float32.
    """

    score: float
    map: NDArray[np.float32]


class Engine(Protocol):
    """Runs the fused network on one frame at a time.

    Order of calls: enter, any number of calls from one thread, exit. Entering loads the network and warms it up, so
    that the first frame costs no more than the next.

    Attributes:
        tolerance: Relative difference from calibration that its arithmetic explains, where that is more than the bundle
            allows.
    """

    backend: str
    tolerance: float

    def __enter__(self) -> Self:
        """Load and warm up.

        Raises:
            EngineError: The runtime refuses the network.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the runtime's memory."""

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame, (height, width, 3), uint8 BGR."""

    def features(self, frame: Image) -> NDArray[np.float32]:
        """Features before averaging, (d, h', w'), float32: what recalibration learns from."""
