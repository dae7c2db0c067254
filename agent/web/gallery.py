"""The newest pictures of a verdict in the archive, with their labels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2

from agent.archive.entry import OVERLAY, sibling
from agent.archive.query import ArchiveQuery, open_reader
from agent.errors import ArchiveError
from agent.messages.records import Evaluation
from agent.web.picture import as_jpeg
from calibration.imaging.utf8_name import utf8_name

if TYPE_CHECKING:
    from pathlib import Path

    from agent.archive.entry import ArchivedImage
    from agent.messages.records import Payload

_NEWEST = 24
_KEPT = 64
SIZES_PX = {"small": 320, "large": 1280}


class Gallery:
    """Reads the archive while the agent writes it; from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.jpeg = lru_cache(_KEPT)(self._jpeg)

    def newest(self, evaluation: Evaluation) -> list[Payload]:
        """The newest images with this verdict.

        Raises:
            ArchiveError: There is no archive, or it cannot be read.
        """
        with open_reader(self._folder) as archive:
            return [_entry(image) for image in archive.newest(ArchiveQuery(evaluation=evaluation), _NEWEST)]

    def _jpeg(self, result_id: str, longest_side_px: int) -> bytes:
        """The image of a result with its heat map.

        Raises:
            ArchiveError: It is no longer in the archive.
        """
        with open_reader(self._folder) as archive:
            kept = archive.named(result_id)
        for path in (sibling(kept.path, OVERLAY), kept.path):
            with utf8_name(self._folder / path) as name:
                image = cv2.imread(name)
            if image is not None:
                return as_jpeg(image.astype("uint8", copy=False), longest_side_px)
        raise ArchiveError(
            what=f"the image of {result_id} has been removed", remedy="the oldest images are removed first"
        )


def _entry(image: ArchivedImage) -> Payload:
    return {
        "id": image.result_id,
        "part": image.part_id,
        "at": image.created_at_ms,
        "ok": image.evaluation is Evaluation.OK,
        "ratio": image.ratio,
        "label": image.label,
        "by": image.marked_by,
    }
