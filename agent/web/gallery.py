"""Archived images for browsers: searched, and shown with or without their heat maps."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

import cv2

from agent.archive.entry import CLASSES, OVERLAY, sibling
from agent.archive.query import EVER_MS, ArchiveQuery, open_reader
from agent.archive.thumbnail import LONGEST_SIDE_PX, thumbnail_in
from agent.errors import ArchiveError
from agent.messages.records import ResultCode
from agent.web.labels import CODES, VERDICTS
from agent.web.picture import as_jpeg
from agent.web.query_times import time_in
from agent.web.token_auth import RefusedError
from calibration.imaging.utf8_name import utf8_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.archive.entry import ArchivedImage
    from agent.messages.records import Payload

_AT_A_TIME = 48
_LONGEST_TEXT = 200
_CACHE_BYTES = 16 * 2**20
_LABELS = {"": None, "none": "", "good": "good", "defect": "defect"}
SIZES_PX = {"small": LONGEST_SIDE_PX, "large": 1280, "frame": 1280}
"""``large`` has the heat map, if there is one; ``frame`` is the picture alone."""


class Gallery:
    """Reads the archive while the agent writes it; from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._jpegs: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached_bytes = 0

    def found(self, asked: Mapping[str, str]) -> Payload:
        """Images that match, newest first.

        The first page also has their number, and the zones and causes to choose from.

        Args:
            asked: As in an address: ``verdict``, ``code``, ``zone``, ``part`` (some letters of its name), ``since`` and
                ``until`` (ms since 1970), ``ratio`` (least score as a multiple of the threshold), ``label`` (``good``,
                ``defect`` or ``none``); ``before``: the result of the last image that is known.

        Raises:
            RefusedError: The query is not valid.
            ArchiveError: There is no archive, or it cannot be read.
        """
        query, before = _query(asked), asked.get("before", "")
        with open_reader(self._folder) as archive:
            images = archive.older(query, before, _AT_A_TIME) if before else archive.newest(query, _AT_A_TIME)
            has_more = len(images) == _AT_A_TIME
            found: Payload = {"images": [_entry(image) for image in images], "hasMore": has_more}
            if before:
                return found
            causes = {code: words for code, words in CODES.items() if words}
            count = archive.count(query) if has_more else len(images)
            return {**found, "count": count, "zones": archive.zones(), "causes": causes}

    def jpeg(self, result_id: str, size: str) -> bytes:
        """The image of a result, in one of `SIZES_PX`.

        Raises:
            ArchiveError: It is no longer in the archive.
        """
        key = result_id, size
        with self._lock:
            if key in self._jpegs:
                self._jpegs.move_to_end(key)
                return self._jpegs[key]
        made = self._made(result_id, size)
        with self._lock:
            self._cached_bytes += len(made) - len(self._jpegs.get(key, b""))
            self._jpegs[key] = made
            while self._cached_bytes > _CACHE_BYTES:
                self._cached_bytes -= len(self._jpegs.popitem(last=False)[1])
        return made

    def _made(self, result_id: str, size: str) -> bytes:
        with open_reader(self._folder) as archive:
            kept = archive.named(result_id)
        with suppress(OSError):
            if size == "small" and (thumbnail := thumbnail_in(self._folder / kept.path)):
                return thumbnail
        overlay = self._folder / sibling(kept.path, OVERLAY)
        path = overlay if size != "frame" and overlay.is_file() else self._folder / kept.path
        with utf8_name(path) as name:
            image = cv2.imread(name)
        if image is not None:
            return as_jpeg(image.astype("uint8", copy=False), SIZES_PX[size])
        raise ArchiveError(
            what=f"the image of {result_id} has been removed", remedy="the oldest images are removed first"
        )


def _query(asked: Mapping[str, str]) -> ArchiveQuery:
    """What is asked for.

    Raises:
        RefusedError: The query is not valid.
    """
    try:
        verdict, code, ratio = (asked.get(name, "") for name in ("verdict", "code", "ratio"))
        return ArchiveQuery(
            evaluation=CLASSES[verdict] if verdict else None,
            since_ms=time_in(asked, "since", 0),
            until_ms=time_in(asked, "until", EVER_MS),
            label=_LABELS[asked.get("label", "")],
            code=ResultCode(int(code)) if code else None,
            zone=asked.get("zone", "")[:_LONGEST_TEXT] or None,
            part_text=asked.get("part", "")[:_LONGEST_TEXT] or None,
            min_ratio=float(ratio) if ratio else None,
        )
    except (KeyError, ValueError) as error:
        raise RefusedError(400, f"it is not clear which pictures are asked for: {error}") from error


def _entry(image: ArchivedImage) -> Payload:
    return {
        "id": image.result_id,
        "part": image.part_id,
        "at": image.created_at_ms,
        "evaluation": image.evaluation,
        "verdict": VERDICTS[image.evaluation],
        "why": CODES.get(image.code, ""),
        "zone": image.zone,
        "ratio": image.ratio,
        "label": image.label,
        "by": image.marked_by,
    }
