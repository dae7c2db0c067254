"""The camera of a set-up, on one thread: live picture and figures, parts seen, parts collected, parts inspected."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from agent.camera.shown_source import without_password
from agent.capture.selection import AtIntervals, OnRequest, Settled
from agent.from_config import camera_of
from agent.setup.focus import Focus
from agent.web.picture import as_jpeg
from calibration.errors import DatasetError, ShiftwatchError
from calibration.imaging.image_files import read_image
from calibration.imaging.region import bounding_region, crop

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.camera import Frame, StationCamera
    from agent.capture.selection import Selection
    from agent.messages.records import Payload
    from agent.setup.draft import Draft, Drafts
    from agent.setup.tray import Tray
    from agent.setup.trial import Trial
    from calibration.imaging.preprocess import Image
    from calibration.imaging.region import Region

log = logging.getLogger(__name__)

_FIGURES_EVERY_S, _RATE_OVER_S, _PARTS_OVER_S = 0.3, 2.0, 10.0
_AGAIN_AFTER_S = 1.0
_CLOSED_WITHIN_S = 5.0
_COLLECTED_EVERY_S = 0.5  # where each frame is a part: neighbours show the same
_PICTURE_PX = 1280


class Bench:
    """Runs from enter to exit; its other methods may be called from any thread.

    Args:
        drafts: Name the camera and what is a part; followed when they change.
        tray: Takes the collected parts.
        empty: Where the image of the empty place is, if there is one.
        collected: Called after each part that was put into the tray.
    """

    def __init__(self, drafts: Drafts, tray: Tray, empty: Path, collected: Callable[[], object]) -> None:
        self.trial: Trial | None = None
        self.is_collecting = False
        self._entered: Trial | None = None
        self._trial_problem = ""
        self._not_collected = ""
        self._drafts = drafts
        self._tray = tray
        self._empty = empty
        self._collected = collected
        self._closing = threading.Event()
        self._again = threading.Event()
        self._new_frame = threading.Condition()
        self._newest: Frame | None = None
        self._camera: StationCamera | None = None
        self._problem = ""
        self._focus, self._figures_at_s = Focus(), 0.0
        self._figures: Payload = {}
        self._request = OnRequest()
        self._selection: Selection = self._request
        self._is_selection_old = True
        self._frame_times: deque[float] = deque(maxlen=200)
        self._part_times: deque[float] = deque(maxlen=200)
        self._thread = threading.Thread(target=self._run, name="bench", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, and close the camera."""
        self._closing.set()
        self.open_again()
        self._thread.join(_CLOSED_WITHIN_S)

    def open_again(self) -> None:
        """Open the camera that the draft names now, with its settings."""
        self._again.set()
        camera = self._camera
        if camera is not None:
            camera.stop()

    def select_again(self) -> None:
        """Take the trigger, regions and empty place that the draft has now, from the next frame on."""
        self._is_selection_old = True

    def collect(self, *, is_on: bool) -> None:
        """Begin or end collecting."""
        if is_on:
            self._not_collected = ""
        self.is_collecting = is_on

    def take_one(self) -> None:
        """Count the next frame as a part, where the line will trigger."""
        self._request.ask()
        trial, camera = self.trial, self._camera
        if trial is not None:
            trial.ask()
        if camera is not None:
            camera.trigger()

    def newest(self) -> Image:
        """The newest frame; DatasetError if there is none."""
        frame = self._newest
        if frame is None:
            raise DatasetError(what="the camera gives no picture", remedy="choose a camera first")
        return frame.image

    def picture_after(self, known: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Number and JPEG of the newest frame once it differs from the known one; None if none comes in time."""
        with self._new_frame:
            self._new_frame.wait_for(lambda: self._newest is not None and self._newest.seq != known, timeout_s)
            frame = self._newest
        if frame is None or frame.seq == known:
            return None
        return frame.seq, as_jpeg(frame.image, _PICTURE_PX)

    def state(self) -> Payload:
        """Camera, figures and counts, for the page."""
        frame, camera, now_s = self._newest, self._camera, time.monotonic()
        is_live = camera is not None and camera.state == "running" and frame is not None
        configured = self._drafts.draft.camera
        recent = [at_s for at_s in list(self._frame_times) if now_s - at_s < _RATE_OVER_S]
        return {
            "found": sorted(map(str, Path("/dev").glob("video*"))),
            "refused": [] if camera is None else list(camera.refused_settings),
            "source": None if configured is None else without_password(str(configured.source)),
            "isLive": is_live,
            "problem": self._problem or self._not_collected or ("" if camera is None or is_live else camera.reason),
            "size": None if frame is None else [frame.image.shape[1], frame.image.shape[0]],
            "framesPerS": round(len(recent) / _RATE_OVER_S, 1),
            "figures": self._figures if is_live else {},
            "parts": sum(now_s - at_s < _PARTS_OVER_S for at_s in list(self._part_times)),
            "partsOverS": _PARTS_OVER_S,
            "hasEmptyPlace": self._empty.exists(),
            "isCollecting": self.is_collecting,
            "isTesting": self.trial is not None,
            "trialProblem": self._trial_problem,
        }

    def _run(self) -> None:
        while not self._closing.is_set():
            self._again.clear()
            if self._closing.is_set():  # it was set just before the other
                return
            try:
                self._watch()
            except ShiftwatchError as error:
                self._problem = error.one_line
            except Exception as error:  # a thread that dies would leave a page without a picture and without a reason
                log.exception("the camera of the set-up")
                self._problem = f"{type(error).__name__}: {error}"
            self._camera, self._newest, self._figures = None, None, {}
            self._close_trial()
            self._again.wait(_AGAIN_AFTER_S if self._problem else None)

    def _watch(self) -> None:
        settings = self._drafts.draft.camera
        if settings is None:
            return
        self.select_again()
        self._problem, self._focus = "", Focus()
        camera = camera_of(settings, loop=True)
        with camera:
            self._camera = camera
            if self._again.is_set():
                return
            for frame in camera:
                if frame is not None and not frame.is_damaged:
                    self._take(frame)
        if not self._again.is_set():
            self._problem = "the camera has ended"

    def _take(self, frame: Frame) -> None:
        now_s = time.monotonic()
        with self._new_frame:
            self._newest = frame
            self._new_frame.notify_all()
        self._frame_times.append(now_s)
        draft, trial = self._drafts.draft, self._open_trial()
        if now_s - self._figures_at_s >= _FIGURES_EVERY_S:
            self._figures, self._figures_at_s = self._focus.figures(inspected(frame.image, draft)), now_s
        try:
            is_part = self._select(frame)
        except DatasetError as error:  # the region does not fit into the frame, or the empty place cannot be read
            self._problem = error.one_line
            return
        self._problem = ""
        if is_part:
            self._part_times.append(now_s)
        if trial is not None:
            trial(frame)
        elif is_part and self.is_collecting:
            self._keep(frame)

    def _select(self, frame: Frame) -> bool:
        """Whether the frame is that of a part, as the draft says now."""
        if self._is_selection_old:
            self._is_selection_old = False
            try:
                self._selection = self._selection_of(self._drafts.draft)
            except DatasetError:
                self._is_selection_old = True
                raise
            self._part_times.clear()
        return self._selection(frame)

    def _keep(self, frame: Frame) -> None:
        try:
            self._tray.add(frame)
        except ShiftwatchError as error:  # the tray, or the disk, is full
            self._not_collected, self.is_collecting = error.one_line, False
            return
        self._collected()

    def _open_trial(self) -> Trial | None:
        """The trial that was asked for, with its networks loaded on this thread, to which they may belong."""
        trial = self.trial
        if trial is not self._entered:
            self._close_trial()
        if trial is not None and self._entered is None:
            try:
                self._entered, self._trial_problem = trial.__enter__(), ""
            except ShiftwatchError as error:
                self._trial_problem = error.one_line
                if self.trial is trial:  # and not another meanwhile
                    self.trial = None
        return self._entered

    def _close_trial(self) -> None:
        if self._entered is not None:
            self._entered.__exit__()
            self._entered = None

    def _selection_of(self, draft: Draft) -> Selection:
        trigger = draft.trigger
        if trigger.source == "command":
            return self._request
        if trigger.source == "every_frame":
            return AtIntervals(_COLLECTED_EVERY_S)
        empty: Image | None = read_image(self._empty) if self._empty.exists() else None
        return Settled(trigger.settled_ms, watched_region(draft), empty)


def watched_region(draft: Draft) -> Region | None:
    """The rectangle around all zones; None is the whole frame."""
    regions = [zone.roi for zone in draft.zones]
    return None if None in regions else bounding_region([each for each in regions if each is not None])


def inspected(image: Image, draft: Draft) -> Image:
    """What all zones cover of a frame; the whole frame where that does not fit into it."""
    region = watched_region(draft)
    try:
        return image if region is None else crop(image, region)
    except DatasetError:
        return image
