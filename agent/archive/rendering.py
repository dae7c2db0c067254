"""Describes images as tables, text and JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from agent.archive.entry import CLASS_NAMES, NUMBERS, OVERLAY, sibling
from agent.archive.export import TEST_DEFECT, TEST_GOOD, TRAIN_GOOD
from agent.archive.files import read
from agent.archive.quota import MIB
from agent.errors import ArchiveError
from agent.messages.records import to_json
from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agent.archive.entry import ArchivedImage
    from agent.archive.export import Exported
    from agent.archive.query import Total
    from agent.messages.records import Payload

_ID_DIGITS = 8


def table(images: Sequence[ArchivedImage]) -> Table:
    """A table with one row per image, 80 columns wide; with labels, if there are any."""
    is_marked = any(image.label for image in images)
    columns = ["time", "result", "part", "class", *(["marked"] if is_marked else [])]
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        rows.add_column(column, overflow="fold", no_wrap=column != "part")
    rows.add_column("score/thr.", justify="right", no_wrap=True)
    for image in images:
        texts = [
            local(image.created_at_ms),
            printable(image.result_id[:_ID_DIGITS]),
            printable(image.part_id or ""),
            CLASS_NAMES[image.evaluation],
            *([image.label or ""] if is_marked else []),
            "none" if image.ratio is None else rounded(image.ratio, 3),
        ]
        rows.add_row(*map(Text, texts))
    return rows


def totals(found: Iterable[Total]) -> str:
    """A summary of the whole archive."""
    each = (
        f"{CLASS_NAMES[total.evaluation]} {total.images} ({total.bytes / MIB:.1f} MiB, "
        f"the oldest of {local(total.oldest_ms)})"
        for total in found
    )
    return "; ".join(each) or "it is empty"


def numbers(folder: Path, image: ArchivedImage) -> Payload:
    """The row of an image, named as in ``result``, and the paths of its files."""
    paths = {"framePath": image.path, "overlayPath": sibling(image.path, OVERLAY)}
    return {
        "resultId": image.result_id,
        "partId": image.part_id,
        "seq": image.seq,
        "creationTime": image.created_at_ms,
        "class": CLASS_NAMES[image.evaluation],
        "resultCode": image.code,
        "score": image.score,
        "threshold": image.threshold,
        "ratio": image.ratio,
        "label": image.label,
        "markedBy": image.marked_by,
        "markedAt": image.marked_at_ms,
        **{name: str(folder / path) for name, path in paths.items() if (folder / path).exists()},
    }


def all_numbers(folder: Path, image: ArchivedImage) -> Payload:
    """The row of an image together with the content of its file of numbers.

    Raises:
        ArchiveError: The file cannot be read.
    """
    path = sibling(image.path, NUMBERS)
    try:
        stored: Payload = json.loads(read(folder, path))
    except (OSError, ValueError) as error:
        raise ArchiveError(
            what=f"cannot read {folder / path}: {error}",
            remedy="it may have been removed, as the oldest are; or fix its permissions",
        ) from error
    return stored | numbers(folder, image)


def outcome(target: Path, done: Exported, zone: str | None = None) -> list[str]:
    """The outcome of an export as lines of text."""
    copied = ", ".join(f"{done.copied[folder]} into {folder}" for folder in (TRAIN_GOOD, TEST_GOOD, TEST_DEFECT))
    undecided = "are NotDecidable and not marked"
    if zone is not None:
        undecided = (
            f"are unknown for {zone}: not decided there by this frame, or marked as a defect that may lie elsewhere"
        )
    left = {
        "were there already": done.there,
        undecided: done.undecided,
        "were removed meanwhile, as the oldest are": done.gone,
    }
    lines = [f"{target}: copied {copied}", *(f"  {count} {why}" for why, count in left.items() if count)]
    return [*lines, "good images are those with the verdict OK: check them, unless they were marked"]


def printable(value: object) -> str:
    """A value on one line, without control characters, which could steer the terminal."""
    return value if isinstance(value, str) and value.isprintable() else to_json([value])[1:-1]


def local(time_ms: int) -> str:
    """A time in the zone of this device."""
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # from a damaged file
        return f"{time_ms} ms"
