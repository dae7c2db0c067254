"""Compares frames of the camera with the images that a bundle was taught with, as the running station would."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from agent.camera.sources import kind_of
from agent.doctor.finding import Finding, ok
from agent.doctor.frame_causes import Cause, Taught, cause_of, grey_cause
from agent.frame_checks.camera_checks import FrameChecks
from agent.from_config import empty_place_of, rules_of
from agent.messages.records import ResultCode
from calibration.errors import DatasetError
from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.config.model import AgentConfig
    from agent.doctor.finding import Level
    from agent.doctor.frame_causes import Certainty, Look
    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image

_NAME = "live frames"
_ENOUGH_TO_FREEZE = 4
_REMEDIES = {
    ResultCode.FRAME_UNUSABLE: "set camera.width and camera.height, or calibrate with this camera",
    ResultCode.DARK: "check lamp, lens cap, exposure and gain",
    ResultCode.OVER_EXPOSED: "check lamp, exposure and gain",
    ResultCode.BLURRED: "focus and clean the lens",
    ResultCode.BLOCKED: "clear the view, or calibrate again with images from this camera",
    ResultCode.MOVED: "put the camera back where it was, or calibrate again",
}
_THAW = "restart the camera; if it sends still images only, raise checks.frozen_after"
_MOSTLY = 2 / 3
_OTHER = "taught from other pictures than this camera gives"
_NO_GOOD_PART = "another kind of part, a moving, displaced or defective one, or something before the lens"
_WITH_PART = "put a good part before the camera and run the doctor again"


def kept_frames(folder: Path) -> list[Image]:
    """The frames that the probe of the camera has kept, in order."""
    return [np.load(file) for file in sorted(folder.glob("*.npy"))]


def live_findings(config: AgentConfig, bundle: Bundle, engine: Engine, frames: Sequence[Image]) -> Iterator[Finding]:
    """Check whether the frames look as taught; with a trigger, the place may be empty."""
    try:
        yield _finding(config, bundle, engine, frames)
    except DatasetError:  # the region does not fit into the frame, which has a finding of its own
        return


def _finding(config: AgentConfig, bundle: Bundle, engine: Engine, frames: Sequence[Image]) -> Finding:
    place = empty_place_of(config, bundle)
    shown = [frame for frame in frames if place is None or not place(frame)]
    if not shown:
        return ok(_NAME, f"the place is empty in all {len(frames)}, so no part was compared; {_WITH_PART}")
    is_each_a_part = config.trigger.source == "every_frame"
    least = (len(shown) + 1) // 2 if is_each_a_part else 1
    taught = Taught(bundle.preprocess, engine, bundle.reference(), rules_of(config, bundle).threshold)
    checks = FrameChecks(taught.reference, taught.preprocess, frozen_after=_frozen_after(config, len(shown)))
    looks = [taught.look(frame, checks) for frame in shown]
    good, ratios = sum(look.is_as_taught for look in looks), [look.ratio for look in looks]
    figures = {"frames": float(len(looks)), "as_taught": float(good), "ratio": float(np.median(ratios))}
    found = f"{good} of {len(looks)} look as taught; score {_range(ratios)} times the threshold"
    if checks.is_frozen:
        return Finding(_NAME, "fault", f"{found}; the camera is frozen: all are the same", _THAW, figures)
    if good >= least:
        grey = grey_cause(shown, taught)
        if grey is not None:
            return Finding(_NAME, "warning", f"{found}, but {grey.text}", grey.remedy, figures)
        return ok(_NAME, found, **figures)
    cause = _cause(shown, looks, taught, least)
    if is_each_a_part or (cause is not None and cause.certainty == "sure"):
        level, text, remedy = _verdict(cause)
    else:
        unlike = 1.0 if place is not None else float(np.median([taught.unlike_share(frame) for frame in shown]))
        level, (text, remedy) = "warning", _empty_or_other(cause, unlike, is_empty_known=place is not None)
    return Finding(_NAME, level, f"{found}: {text}", remedy, figures)


def _frozen_after(config: AgentConfig, frames: int) -> int | None:
    is_live = kind_of(config.camera.source) != "path"
    return frames - 1 if is_live and frames >= _ENOUGH_TO_FREEZE else None


def _cause(frames: Sequence[Image], looks: Sequence[Look], taught: Taught, least: int) -> Cause | None:
    """What is named: what can be undone, what the checks found, what no taught image showed."""
    cause = cause_of(frames, looks, taught, least)
    if cause is not None and cause.certainty != "possible":
        return cause
    codes = Counter(look.fault.code for look in looks if look.fault is not None)
    code, count = next(iter(codes.most_common(1)), (ResultCode.NONE, 0))
    if code not in _REMEDIES or 2 * count < len(looks):
        return cause
    text = next(look.fault.fault for look in looks if look.fault and look.fault.code is code)
    certainty: Certainty = "sure" if code is ResultCode.FRAME_UNUSABLE else "checked"
    if code is ResultCode.BLOCKED and cause is not None:
        return Cause(f"{text}; {cause.text}", cause.remedy, certainty)
    return Cause(text, _REMEDIES[code], certainty)


def _verdict(cause: Cause | None) -> tuple[Level, str, str]:
    """Level, text and remedy where every frame is a part."""
    if cause is None:
        return "warning", f"size, light and colour are no reason, so they show {_NO_GOOD_PART}", _WITH_PART
    if cause.certainty == "possible":
        text = f"perhaps {_OTHER} ({cause.text}), or they show {_NO_GOOD_PART}"
        return "warning", text, f"{_WITH_PART}, or {cause.remedy}"
    return "fault", f"{_OTHER}: {cause.text}", cause.remedy


def _empty_or_other(cause: Cause | None, unlike: float, *, is_empty_known: bool) -> tuple[str, str]:
    """Text and remedy where the place may be empty: which of the two it looks like.

    Args:
        cause: Why the frames are unlike the taught ones.
        unlike: Share of the image that no taught one was like.
        is_empty_known: An image of the empty place is configured, and these frames do not look like it.
    """
    if cause is None:
        shown = _NO_GOOD_PART if is_empty_known else f"an empty place, {_NO_GOOD_PART}"
        return f"size, light and colour are no reason, so they show {shown}", _WITH_PART
    if cause.certainty == "likely":
        return f"{_OTHER}, since the place does not look empty: {cause.text}", f"{cause.remedy}; {_WITH_PART}"
    remedy = f"{_WITH_PART}; if it stays, {cause.remedy}"
    if unlike < _MOSTLY:
        return f"the place looks empty: {unlike:.0%} of the image is unlike the taught ones ({cause.text})", remedy
    unless = f"unless they show {_NO_GOOD_PART}" if is_empty_known else "unless the place is empty"
    return f"{_OTHER}, {unless}: {cause.text}", remedy


def _range(ratios: Sequence[float]) -> str:
    ends = [rounded(each, 2) for each in (min(ratios), max(ratios))]
    return " to ".join(dict.fromkeys(ends))
