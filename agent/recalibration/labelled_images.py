"""What people have said of pictures in the archive: known defects to prove a bundle on, and good parts it rejected."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.archive.query import ArchiveQuery, evaluation_in, open_reader
from agent.errors import ArchiveError
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_MOST = 100


class LabelledImages(NamedTuple):
    """Paths of frames, the newest hundred of each kind.

    Attributes:
        defects: Marked as defects.
        good: Result and path of parts that were NotOK and that somebody has called good since.
    """

    defects: tuple[str, ...] = ()
    good: tuple[tuple[str, str], ...] = ()


def labelled_images_in(archive: Path, since_ms: int, zone: str = "") -> LabelledImages:
    """Read them; an archive that cannot be read has none, which is logged.

    Args:
        archive: Its folder.
        since_ms: What was called good before is known already.
        zone: Only pictures that were NotOK in this zone: a defect elsewhere is none here.
    """
    try:
        with open_reader(archive) as index:
            pictures = list(index.each(ArchiveQuery(labelled=True)))
    except ArchiveError as error:
        log.info("no marked pictures: %s", error.what)
        return LabelledImages()
    if zone:
        pictures = [each for each in pictures if evaluation_in(zone, archive, each) is Evaluation.NOT_OK]
    defects = [str(archive / picture.path) for picture in pictures if picture.label == "defect"]
    good = [
        (picture.result_id, str(archive / picture.path))
        for picture in pictures
        if picture.label == "good"
        and picture.evaluation is Evaluation.NOT_OK
        and (picture.marked_at_ms or 0) > since_ms
    ]
    return LabelledImages(tuple(defects[-_MOST:]), tuple(good[-_MOST:]))
