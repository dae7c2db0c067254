"""Pictures in words: for tables, and as JSON."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from agent.archive.entry import CLASS_NAMES, NUMBERS, OVERLAY, sibling
from agent.archive.export import TEST_DEFECT, TEST_GOOD, TRAIN_GOOD
from agent.archive.quota import MIB
from agent.errors import ArchiveError
from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agent.archive.entry import ArchivedImage
    from agent.archive.export import Exported
    from agent.archive.query import Total
    from agent.messages.records import Payload

_ID_DIGITS = 8


def table(pictures: Sequence[ArchivedImage]) -> Table:
    """A row for each; with what people said, where somebody has said something."""
    is_marked = any(picture.label for picture in pictures)
    columns = ["time", "result", "part", "class", *(["marked"] if is_marked else [])]
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        rows.add_column(column, overflow="fold", no_wrap=column != "part")
    rows.add_column("score/threshold", justify="right", no_wrap=True)
    rows.add_column("path", overflow="fold")
    for picture in pictures:
        texts = [
            local(picture.created_at_ms),
            printable(picture.result_id[:_ID_DIGITS]),
            printable(picture.part_id or ""),
            CLASS_NAMES[picture.evaluation],
            *([picture.label or ""] if is_marked else []),
            "none" if picture.ratio is None else f"{picture.ratio:.3g}",
            picture.path,
        ]
        rows.add_row(*map(Text, texts))
    return rows


def totals(found: Iterable[Total]) -> str:
    """What the whole archive holds."""
    each = (
        f"{CLASS_NAMES[total.evaluation]} {total.pictures} ({total.bytes / MIB:.1f} MiB, "
        f"the oldest of {local(total.oldest_ms)})"
        for total in found
    )
    return "; ".join(each) or "it is empty"


def numbers(folder: Path, picture: ArchivedImage) -> Payload:
    """What the index knows of one, named as in ``result``, and where its files are."""
    paths = {"framePath": picture.path, "overlayPath": sibling(picture.path, OVERLAY)}
    return {
        "resultId": picture.result_id,
        "partId": picture.part_id,
        "seq": picture.seq,
        "creationTime": picture.created_at_ms,
        "class": CLASS_NAMES[picture.evaluation],
        "resultCode": picture.code,
        "score": picture.score,
        "threshold": picture.threshold,
        "ratio": picture.ratio,
        "label": picture.label,
        "markedBy": picture.marked_by,
        "markedAt": picture.marked_at_ms,
        **{name: str(folder / path) for name, path in paths.items() if (folder / path).exists()},
    }


def all_numbers(folder: Path, picture: ArchivedImage) -> Payload:
    """The same with everything that stands beside the picture.

    Raises:
        ArchiveError: That cannot be read.
    """
    path = folder / sibling(picture.path, NUMBERS)
    try:
        beside: Payload = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArchiveError(
            what=f"cannot read {path}: {error}", remedy="it may just have been removed: the oldest go; else mend it"
        ) from error
    return beside | numbers(folder, picture)


def outcome(target: Path, done: Exported, zone: str | None = None) -> list[str]:
    """What was exported, and what not."""
    copied = ", ".join(f"{done.copied[folder]} into {folder}" for folder in (TRAIN_GOOD, TEST_GOOD, TEST_DEFECT))
    undecided = "are NotDecidable and nobody has marked them"
    if zone is not None:
        undecided = (
            f"say nothing of {zone}: not decided there by this frame, or marked as a defect that may lie elsewhere"
        )
    left = {
        "were there already": done.there,
        undecided: done.undecided,
        "were removed meanwhile, the oldest go": done.gone,
    }
    lines = [f"{target}: copied {copied}", *(f"  {count} {why}" for why, count in left.items() if count)]
    return [*lines, "good are OK pictures by verdict: look through them, unless somebody marked them"]


def printable(value: object) -> str:
    """On one line, whatever it holds: a name with control characters must not steer the terminal."""
    return value if isinstance(value, str) and value.isprintable() else to_json([value])[1:-1]


def local(time_ms: int) -> str:
    """This device's time."""
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # of a damaged file
        return f"{time_ms} ms"
