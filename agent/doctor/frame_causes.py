"""Finds why a camera's frames are unlike the images that a bundle was taught with.

The best evidence is that the frames look as taught once a cause is undone, by the station's own checks and network.
The weakest is what lies outside of everything that the taught images showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np

from agent.frame_checks.camera_checks import FrameChecks
from calibration.camera_checks import frame_statistics
from calibration.errors import DatasetError
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.frame_checks.camera_checks import FrameFault
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image, Preprocess

    Change = Callable[[Image], Image]

Certainty: TypeAlias = Literal["sure", "likely", "checked", "possible"]

_GREY_LEVELS, _COLOUR_LEVELS = 0.5, 2.0
_UNUSUAL = 0.05
_NOTICEABLE = 0.1
_MOST_FRAMES = 4
_LOWER, _MUCH_LOWER = 0.8, 0.2
_BLUR_PX = 3  # of the network input
_BLOCK_PX, _BLOCKY = 8, 1.5
_AGAIN = "or calibrate again with images from this camera"


class Cause(NamedTuple):
    """Why frames are unlike the taught images.

    Attributes:
        text: What is different.
        remedy: What to do about it.
        certainty: ``sure`` if the camera is the reason whatever is before it; ``likely`` if the frames look as taught
            once it is undone; ``checked`` if the station's checks found it; ``possible`` if nothing taught is like it.
    """

    text: str
    remedy: str
    certainty: Certainty


class Look(NamedTuple):
    """What the station would make of one frame: why it cannot be trusted, if so; its score over the threshold."""

    fault: FrameFault | None
    ratio: float

    @property
    def is_as_taught(self) -> bool:
        """Whether it would be OK."""
        return self.fault is None and self.ratio <= 1.0


@dataclass(frozen=True)
class Taught:
    """A bundle, and what its good images looked like.

    Attributes:
        reference: Arrays of ``reference.npz``.
        threshold: Score above which a part is NotOK.
    """

    preprocess: Preprocess
    engine: Engine
    reference: Mapping[str, NDArray[Any]]
    threshold: float

    @cached_property
    def colours(self) -> NDArray[np.float64]:
        """Mean colour of each good image, (n, 3) BGR."""
        return np.asarray(self.reference["brightness"], np.float64)

    def unlike_share(self, frame: Image) -> float:
        """Share of the image whose colour no taught image had there; 1 if an older bundle does not know."""
        if "blocks_least" not in self.reference:
            return 1.0
        known = self.reference["blocks_least"], self.reference["blocks_most"]
        return frame_statistics.unknown_colour_share(frame_statistics.blocks(self.preprocess(frame)), *known)

    def look(self, frame: Image, checks: FrameChecks | None = None) -> Look:
        """How a frame looks.

        Raises:
            DatasetError: The region does not fit into it.
        """
        checks = checks or FrameChecks(self.reference, self.preprocess, frozen_after=None)
        place = self.preprocess.locate(frame)
        prepared = self.preprocess.network_input(frame, place.region)
        fault = checks.of_frame(frame) or checks.of_input(prepared, place)
        return Look(fault, self.engine(prepared).score / self.threshold)


def cause_of(frames: Sequence[Image], looks: Sequence[Look], taught: Taught, least: int) -> Cause | None:
    """The most likely cause; None if none is found, as where another part or no part is there.

    Args:
        frames: Of the camera.
        looks: Of these frames; fewer than ``least`` are as taught.
        taught: The bundle.
        least: Frames that must look as taught.
    """
    if (grey := grey_cause(frames, taught)) is not None:
        return grey
    nearest = np.argsort([look.ratio for look in looks], kind="stable")[:_MOST_FRAMES]
    frames, least = [frames[index] for index in nearest], min(least, (len(nearest) + 1) // 2)
    before = float(np.median([looks[index].ratio for index in nearest]))
    found = []
    for cause, undo in _causes_to_undo(frames, taught):
        try:
            after = [taught.look(undo(frame)) for frame in frames]
        except DatasetError:  # a turned frame has another size
            continue
        ratio = float(np.median([look.ratio for look in after]))
        good = sum(look.is_as_taught for look in after)
        if (good >= least and ratio <= _LOWER * before) or ratio <= _MUCH_LOWER * before > _MUCH_LOWER:
            found.append((-good, ratio, cause))
    if found:
        return min(found, key=lambda each: each[:2])[2]
    return next(_outside_of_taught(frames, taught), None)


def grey_cause(frames: Sequence[Image], taught: Taught) -> Cause | None:
    """That the camera gives no colours, although calibration saw some; the network may not need them to say OK."""
    saw_colours = np.ptp(taught.colours, axis=1).max() >= _COLOUR_LEVELS
    if not saw_colours or any((frame[..., 1:] != frame[..., :-1]).any() for frame in frames):
        return None
    text = "the camera gives grey images, and calibration saw colours"
    return Cause(text, f"switch the camera to colour, {_AGAIN}", "sure")


def _causes_to_undo(frames: Sequence[Image], taught: Taught) -> Iterator[tuple[Cause, Change]]:
    """Causes, each with the function that undoes it in a frame."""
    yield Cause("red and blue are exchanged", f"correct the camera's pixel format, {_AGAIN}", "sure"), _swapped
    turns = {"upside down": (-1, -1, 0), "mirrored left to right": (1, -1, 0), "mirrored top to bottom": (-1, 1, 0)}
    turns |= {"turned a quarter to the right": (1, 1, 1), "turned a quarter to the left": (1, 1, 3)}
    for how, (down, right, quarters) in turns.items():
        cause = Cause(f"the image is {how}", f"correct the camera's mounting or its flip setting, {_AGAIN}", "sure")
        yield cause, partial(_turned, down, right, quarters)
    if np.ptp(taught.colours, axis=1).max() < _GREY_LEVELS:
        text = "the camera gives colours, and calibration saw grey images"
        yield Cause(text, f"switch the camera to grey, {_AGAIN}", "sure"), _without_colour
    usual, seen = _usual_colours(frames, taught)
    gain = (usual + 1.0) / (seen + 1.0)
    if _is_unseen(seen, taught):
        yield _light_cause(usual, seen, "likely"), lambda frame: np.clip(frame * gain, 0, 255).astype(np.uint8)
    text = "the frames are noisier or sharper than in calibration, or have the edges of compression"
    remedy = f"lower the gain, switch off sharpening, compress less, {_AGAIN}"
    side = _BLUR_PX * max(1, round(taught.preprocess.area(frames[0]).width / taught.preprocess.width))
    yield (
        Cause(text, remedy, "sure"),
        partial(_blurred, side),
    )


def _outside_of_taught(frames: Sequence[Image], taught: Taught) -> Iterator[Cause]:
    """What no taught image showed, the most telling first."""
    usual, seen = _usual_colours(frames, taught)
    if _is_unseen(seen, taught):
        yield _light_cause(usual, seen, "possible")
    if np.median([_blockiness(frame) for frame in frames]) >= _BLOCKY:
        text = "the frames have the blocks of strong JPEG compression"
        yield Cause(text, f"let the camera compress less, {_AGAIN}", "possible")
    edges = float(np.median([frame_statistics.edges(to_grey(each)) for each in map(taught.preprocess, frames)]))
    if edges < taught.reference.get("edges", np.array(edges)).min() - _NOTICEABLE:
        text = "the frames are less sharp than all of calibration"
        yield Cause(text, f"focus and clean the lens, {_AGAIN}", "possible")


def _is_unseen(colour: NDArray[np.float64], taught: Taught) -> bool:
    """Whether the mean colour of no taught image was near this one."""
    least, most = taught.colours.min(axis=0) * (1 - _UNUSUAL) - 1, taught.colours.max(axis=0) * (1 + _UNUSUAL) + 1
    return bool((colour < least).any() or (colour > most).any())


def _usual_colours(frames: Sequence[Image], taught: Taught) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median of the mean colours in calibration, and of these frames, BGR."""
    seen = [frame_statistics.mean_colour(taught.preprocess(frame)) for frame in frames]
    return np.median(taught.colours, axis=0), np.median(seen, axis=0)


def _light_cause(usual: NDArray[np.float64], seen: NDArray[np.float64], certainty: Certainty) -> Cause:
    here, there = (", ".join(f"{level:.0f}" for level in colour[::-1]) for colour in (seen, usual))
    text = f"light or colour differ: mean red, green, blue are {here} here, and were {there} in calibration"
    return Cause(text, f"set lamp, exposure, gain and white balance as in calibration, {_AGAIN}", certainty)


def _swapped(frame: Image) -> Image:
    return np.ascontiguousarray(frame[..., ::-1])


def _turned(down: int, right: int, quarters: int, frame: Image) -> Image:
    return np.ascontiguousarray(np.rot90(frame[::down, ::right], quarters))


def _without_colour(frame: Image) -> Image:
    return np.repeat(to_grey(frame)[..., np.newaxis], 3, axis=2)


def _blurred(side: int, frame: Image) -> Image:
    """Two box blurs, which are near to a Gaussian one and fast, however large the frame."""
    once = cv2.blur(frame, (side, side))
    return cv2.blur(once, (side, side)).astype(np.uint8, copy=False)


def _blockiness(frame: Image) -> float:
    """Mean step between two columns at the edges of JPEG's blocks, over that elsewhere."""
    steps = np.abs(np.diff(to_grey(frame).astype(np.int16), axis=1)).mean(axis=0)
    at_edges = np.arange(1, steps.size + 1) % _BLOCK_PX == 0
    return float(steps[at_edges].mean() / max(steps[~at_edges].mean(), 0.1))
