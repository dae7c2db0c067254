"""Teaching: calibration in a process of its own, one at a time, with its progress and what came of it."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.child_process import ChildProcess, ChildProgram
from agent.errors import SetupError
from calibration.bundle.bundle import open_bundle
from calibration.errors import ShiftwatchError
from calibration.statistics.threshold import working_point

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from agent.messages.records import Payload
    from agent.setup.draft import Draft, Drafts
    from agent.setup.tray import Tray

log = logging.getLogger(__name__)

LEAST_IMAGES = 10
FACTS = "taught.json"
_PROGRAM = ChildProgram(
    module="agent.setup.teaching_main",
    failure=SetupError,
    remedy="see the log for why; perhaps the device has too little memory for images of this size",
    niceness=10,
    is_expendable=True,
)
_MOST_KEPT = 2
_LOOK_EVERY_S = 0.2


class Teaching:
    """Safe from any thread.

    Args:
        folder: For the bundles, one folder for each teaching.
        drafts: Say what to teach, and get the number of the teaching that is used.
        tray: The images.

    Attributes:
        images_tried: Number of images in the last teaching, whatever came of it.
        taught: Called after each teaching.
    """

    def __init__(self, folder: Path, drafts: Drafts, tray: Tray) -> None:
        self.taught: Callable[[], object] = lambda: None
        self._folder = folder
        self._drafts = drafts
        self._tray = tray
        self._lock = threading.Lock()
        self._progress: Payload | None = None
        self._error = ""
        self._is_cancelled = False
        self._taught = self._read(drafts.draft.taught)
        self._effects: dict[tuple[int, str, tuple[float, ...]], Payload | None] = {}
        self.images_tried = int(self._taught[1][0]["images"]) if self._taught[1] else 0

    def check(self) -> None:
        """Raise SetupError if one is under way, or there are too few images."""
        if self._progress is not None:
            raise SetupError(what="it is being taught already", remedy="wait for its end, or cancel it")
        if self.images < LEAST_IMAGES:
            raise SetupError(
                what=f"{self.images} images are too few to teach",
                remedy=f"collect {LEAST_IMAGES} or more, better a hundred of different good parts",
            )

    def start(self) -> None:
        """Begin; the progress is in `state`. Raises SetupError as `check`."""
        with self._lock:
            self.check()
            self._progress, self._error, self._is_cancelled = {"step": "starting", "share": 0.0}, "", False
            self.images_tried = self.images
        draft, number = self._drafts.draft, 1 + max(self._numbers(), default=0)
        threading.Thread(target=self._teach, args=(number, draft), name="teaching", daemon=True).start()

    def cancel(self) -> None:
        """End the one that is under way; what was taught before stays."""
        self._is_cancelled = True

    def bundles(self, draft: Draft) -> dict[str, Path]:
        """Folder of the bundle of each zone, as last taught.

        Raises:
            SetupError: Nothing was taught yet, or not with these zones.
        """
        number, facts = self._taught
        regions = {each["zone"]: (each["region"], each["ignored"]) for each in facts}
        for zone in draft.zones:
            if (zone.name or "") not in regions:
                raise SetupError(what="these zones are not taught yet", remedy="teach first")
            if regions[zone.name or ""] != (zone.region, zone.ignored):
                raise SetupError(what="the region has changed since it was taught", remedy="teach again")
        return {zone.name or "": self._path(number, zone.name) for zone in draft.zones}

    def state(self) -> Payload:
        """Progress, the last error, what was taught, and the effect of leaving images out since then."""
        out_names = set(self._drafts.draft.thrown_out)
        number, facts = self._taught
        return {
            "progress": self._progress,
            "error": self._error,
            "number": number,
            "zones": [{**each, "without": self._without(number, each, out_names)} for each in facts],
        }

    @property
    def images(self) -> int:
        """Number of images to teach."""
        out_names = set(self._drafts.draft.thrown_out)
        return sum(name not in out_names for name in self._tray.names)

    @property
    def marks(self) -> dict[str, str]:
        """What the last teaching found odd about images: ``unlike the others``, or a copy of another."""
        found: dict[str, str] = {}
        for zone in self._taught[1]:
            for finding in zone["findings"]:
                if 2 * len(finding["images"]) < zone["images"]:  # in a sequence each is like the one before
                    found.update(_copies(finding["images"]))
            found.update({each["name"]: "unlike the others" for each in zone["suspicious"]})
        return found

    @property
    def is_under_way(self) -> bool:
        """Whether one is under way."""
        return self._progress is not None

    def _teach(self, number: int, draft: Draft) -> None:
        out = self._folder / str(number)
        try:
            out.mkdir(parents=True)
            self._calibrate(draft, out)
            taught = self._read(number)
            self._drafts.change(taught=number)
            self._taught = taught
            self._remove_old(number)
        except _CancelledError:
            shutil.rmtree(out, ignore_errors=True)
        except Exception as error:  # the page must show whatever it is
            log.debug("teaching", exc_info=True)
            self._error = error.one_line if isinstance(error, ShiftwatchError) else f"{type(error).__name__}: {error}"
            shutil.rmtree(out, ignore_errors=True)
        finally:
            self._progress = None
        self.taught()

    def _calibrate(self, draft: Draft, out: Path) -> None:
        order = {
            "images": str(self._tray.folder),
            "out": str(out),
            "facts": str(out / FACTS),
            "leftOut": draft.thrown_out,
            "falseRejectRate": draft.false_reject_rate,
            "threads": 0,
            "zones": [zone.model_dump() for zone in draft.zones],
        }
        start_s = time.monotonic()
        with ChildProcess(_PROGRAM, "the process that teaches", order) as process:
            while not self._is_cancelled:
                message = process.receive(_LOOK_EVERY_S)
                report: dict[str, Any] = {"kind": "nothing"} if message is None else json.loads(message)
                if report["kind"] == "failed":
                    raise SetupError(what=report["what"], remedy=report["remedy"])
                if report["kind"] == "done":
                    return
                if report["kind"] == "progress":
                    self._progress = _shown(report, [zone.name or "" for zone in draft.zones], start_s)
        raise _CancelledError

    def _without(self, number: int, facts: Payload, out_names: Collection[str]) -> Payload | None:
        """Threshold and share of drawn defects found, if the images left out since then had not been there."""
        scored = {each["name"]: each["score"] for each in (*facts["highest"], *facts["suspicious"])}
        left_out = [score for name, score in scored.items() if name in out_names]
        if not left_out:
            return None
        key = (number, facts["zone"], tuple(sorted(left_out)))
        effects = self._effects
        if key not in effects:
            others = {each: effect for each, effect in effects.items() if each[1] != facts["zone"]}
            self._effects = effects = {**others, key: _effect(self._path(number, facts["zone"]), left_out)}
        return effects[key]

    def _path(self, number: int, zone: str | None) -> Path:
        return self._folder / str(number) / (zone or "bundle")

    def _read(self, number: int) -> tuple[int, list[Payload]]:
        """A teaching and its facts; none of one whose folder is not whole."""
        try:
            facts: list[Payload] = json.loads((self._folder / str(number) / FACTS).read_bytes())
        except (OSError, ValueError):
            return 0, []
        return (number, facts) if all(self._path(number, each["zone"]).is_dir() for each in facts) else (0, [])

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._folder.glob("*") if path.name.isdecimal()]

    def _remove_old(self, number: int) -> None:
        for each in self._numbers():
            if each <= number - _MOST_KEPT:
                shutil.rmtree(self._folder / str(each), ignore_errors=True)


class _CancelledError(Exception):
    pass


def _copies(findings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names of images and what they are copies of, of findings such as ``/good/3.png is like /good/2.png``."""
    for text in findings:
        for words in (" is like ", " is a copy of "):
            name, is_copy, other = text.partition(words)
            if is_copy:
                yield Path(name).name, f"{words.strip().removeprefix('is ')} {Path(other).name}"


def _effect(path: Path, left_out: Sequence[float]) -> Payload | None:
    try:
        bundle = open_bundle(path)
        point, forecast = bundle.working_point, bundle.forecast
        good = np.sort(bundle.reference()["good_scores"])
    except ShiftwatchError as error:
        log.warning("%s", error.one_line)
        return None
    for each in left_out:  # one by one, as copies of an image have the same score
        good = np.delete(good, np.searchsorted(good, each))
    if len(good) < LEAST_IMAGES:
        return None
    threshold = working_point(good, point.false_reject_rate, point.parts).threshold
    return {"threshold": threshold, "found": None if forecast is None else forecast.found(threshold=threshold)}


_STEPS = {"looking": (0.0, 0.15), "learning": (0.15, 0.6), "drawing": (0.6, 0.8), "validating": (0.8, 1.0)}
_LEAST_SHARE = 0.1  # less says nothing about the time


def _shown(report: dict[str, Any], zones: list[str], start_s: float) -> Payload:
    """Progress over all zones, and the time left at this pace."""
    begin, end = _STEPS.get(report["step"], (0.0, 0.0))
    in_zone = begin + (end - begin) * report["done"] / max(1, report["total"])
    share = (zones.index(report["zone"]) + in_zone) / len(zones)
    left_s = (time.monotonic() - start_s) * (1 - share) / share if share >= _LEAST_SHARE else None
    return {"zone": report["zone"], "step": report["step"], "share": share, "leftS": left_s}
