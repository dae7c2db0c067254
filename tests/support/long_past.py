"""A long past of a station, made within seconds in the agent's own formats: kept pictures and statistics."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from agent.archive.entry import NUMBERS, encoded, sibling
from agent.archive.quota import Limits
from agent.archive.snapshot import Heat, Snapshot
from agent.archive.store import Store
from agent.clock import now_ms
from agent.messages.records import Evaluation, Result, ResultCode, ZoneResult
from agent.statistics.tables import QUARTER_MS, OneResult, count, insert, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calibration.imaging.preprocess import Image

MAX_MIB = 1024 * 1024
"""An archive that is open for the pictures must have this much room: it counts a file for each of its names."""
_KINDS = (Evaluation.NOT_OK, Evaluation.OK, Evaluation.NOT_DECIDABLE)
_THRESHOLD = 100.0
_QUARTERS = 365 * 24 * 4


def keep_pictures(archive: Path, images: Sequence[Image], count: int) -> None:
    """Fill an archive with pictures, one in each quarter of an hour until now.

    Pictures of the same image are one file on the disk, with many names.

    Args:
        archive: A folder that no agent uses now; created when needed.
        images: At least three, each (rows, columns, 3), uint8, BGR. The first of three is NotOK, the last NotDecidable.
        count: Number of pictures.
    """
    end_ms = now_ms()
    first = []
    for number in range(count):
        snapshot = _snapshot(number, images[number % len(images)], end_ms - (count - number) * QUARTER_MS)
        (archive / snapshot.reference).parent.mkdir(parents=True, exist_ok=True)
        if number < len(images):
            first.append((snapshot.reference, encoded(snapshot)))
            files = first[-1][1]
        else:
            reference, contents = first[number % len(images)]
            files = {NUMBERS: _numbers(contents[NUMBERS], snapshot)}
            for ending in contents.keys() - files.keys():
                os.link(archive / sibling(reference, ending), archive / sibling(snapshot.reference, ending))
        for ending, content in files.items():
            (archive / sibling(snapshot.reference, ending)).write_bytes(content)
    store = Store(archive, Limits(MAX_MIB * 2**20))
    while not store.is_reconciled:
        store.tidy()
    store.close()


def count_a_year(path: Path) -> None:
    """Make statistics of four results in each quarter of an hour, for a year until now."""
    start_ms = now_ms() - _QUARTERS * QUARTER_MS
    kinds = [(Evaluation.OK, 0, None), (Evaluation.OK, 0, None), (Evaluation.NOT_OK, 0, "left")]
    kinds.append((Evaluation.NOT_DECIDABLE, ResultCode.BLURRED, None))
    with closing(opened(path)) as database:
        results = [
            OneResult(f"{quarter}-{kind}", start_ms + quarter * QUARTER_MS, quarter, None, *what, 50.0, _THRESHOLD)
            for quarter in range(_QUARTERS)
            for kind, what in enumerate(kinds)
        ]
        insert(database, results)
        count(database, len(results))
        database.execute("DELETE FROM result WHERE id < (SELECT max(id) FROM result)")


def _snapshot(number: int, image: Image, at_ms: int) -> Snapshot:
    evaluation = _KINDS[number % len(_KINDS)]
    is_reject = evaluation is Evaluation.NOT_OK
    score = _THRESHOLD * (1 + number % 100 / 100 if is_reject else 0.5)
    zone = ZoneResult(seq=number, evaluation=evaluation, code=0, score=score, threshold=_THRESHOLD)
    result = Result(
        result_id=f"{number * 2_654_435_761 % 2**32:08x}{number:024x}",
        seq=number,
        part_id=f"Lid {number:05}",
        created_at_ms=at_ms,
        evaluation=evaluation,
        code=ResultCode.BLURRED if evaluation is Evaluation.NOT_DECIDABLE else ResultCode.NONE,
        score=float("nan") if evaluation is Evaluation.NOT_DECIDABLE else score,
        threshold=_THRESHOLD,
        zones={"left" if number % 2 else "right": zone},
    )
    heat = (Heat(None, np.linspace(0, 2 * score, 49, dtype=np.float32).reshape(7, 7), _THRESHOLD),)
    return Snapshot(image, heat if is_reject else (), None, result)


def _numbers(of: bytes, snapshot: Snapshot) -> bytes:
    """The numbers of a snapshot whose image has been kept before, with those numbers."""
    result, frame = snapshot.result, snapshot.reference.rpartition("/")[2]
    numbers = json.loads(of)
    named = {
        name: sibling(frame, f".{numbers[name].partition('.')[2]}") for name in ("frame", "overlay") if name in numbers
    }
    return json.dumps(
        numbers
        | named
        | {
            "resultId": result.result_id,
            "seq": result.seq,
            "partId": result.part_id,
            "creationTime": result.created_at_ms,
            "score": None if numbers["score"] is None else result.score,
            "zones": {name: zone.payload() for name, zone in result.zones.items()},
        }
    ).encode()
