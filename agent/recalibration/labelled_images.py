"""Images labelled in the archive: known defects to test a bundle on, and good parts that it rejected."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.archive.query import ArchiveQuery, is_about, open_reader
from agent.errors import ArchiveError
from agent.messages.records import Evaluation

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_MOST = 100


class LabelledImages(NamedTuple):
    """Result id and path of images, the newest hundred of each kind.

    Attributes:
        defects: Labelled as defects, whatever the verdict was.
        good: Of parts that were NotOK and have been labelled as good since.
    """

    defects: tuple[tuple[str, str], ...] = ()
    good: tuple[tuple[str, str], ...] = ()


def labelled_images_in(archive: Path, since_ms: int, zone: str = "") -> LabelledImages:
    """Labelled images of an archive; none, and an entry in the log, if it cannot be read.

    Args:
        archive: Its folder.
        since_ms: Only images labelled as good after this time; the bundle knows the others.
        zone: Only images that were NotOK in this zone; a defect that no zone found counts for the one that was nearest
            to its threshold.
    """
    try:
        with open_reader(archive) as index:
            images = list(index.each(ArchiveQuery(labelled=True)))
    except ArchiveError as error:
        log.info("no labelled images: %s", error.what)
        return LabelledImages()
    if zone:
        images = [each for each in images if is_about(zone, archive, each)]
    defects = [(image.result_id, str(archive / image.path)) for image in images if image.label == "defect"]
    good = [
        (image.result_id, str(archive / image.path))
        for image in images
        if image.label == "good" and image.evaluation is Evaluation.NOT_OK and (image.marked_at_ms or 0) > since_ms
    ]
    return LabelledImages(tuple(defects[-_MOST:]), tuple(good[-_MOST:]))
