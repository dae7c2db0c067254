"""Runs of a benchmark on disk: a CSV file that grows by a row a run, and all of them with their means as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from calibration.deployment.latency import processor_name
from calibration.errors import SettingError
from calibration.plain_text import from_spreadsheet_cell, spreadsheet_cell
from calibration.workstation.evaluation.benchmark import Identity, Run
from calibration.workstation.output_files import accessible

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from calibration.workstation.evaluation.averages import Row

COLUMNS = tuple(Run.model_fields)
_STRUCTURED = ("expected_false_reject_rate", "detection_by_kind", "skipped", "findings")  # as JSON in their cell
_SOFTWARE = ("shiftwatch", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "scikit-learn")


class RunFile:
    """Runs as CSV, one a row, each on disk before the next begins.

    Attributes:
        runs: Runs that the file held when it was opened.
    """

    def __init__(self, path: Path, planned: Collection[Identity]) -> None:
        """Open or create a file for the planned runs; a row that was cut short, as by a power failure, is dropped.

        Raises:
            SettingError: The file holds something else, or a run that is not planned; it stays unchanged.
            StorageError: Not readable, or not writable.
        """
        self._path = path
        with accessible(path, "--csv FILE", "read or write"):
            content = path.read_bytes().decode() if path.exists() else ""
        whole = content[: content.rfind("\n") + 1]
        self.runs = _runs(path, whole or content)
        _refuse_others(path, self.runs, planned)
        with accessible(path, "--csv FILE", "read or write"):
            if not whole:
                path.write_text(_line(COLUMNS), encoding="utf-8")
            elif whole != content:
                os.truncate(path, len(whole.encode()))

    def append(self, run: Run) -> None:
        """Write one run.

        Raises:
            StorageError: No room.
        """
        values = run.model_dump(mode="json")
        cells = [json.dumps(value) if name in _STRUCTURED else _cell(value) for name, value in values.items()]
        with accessible(self._path, "--csv FILE", "read or write"), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(cells))


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: object) -> object:
    return spreadsheet_cell(value) if isinstance(value, str) else value


def _runs(path: Path, content: str) -> list[Run]:
    header, *rows = csv.reader(io.StringIO(content)) if content else [COLUMNS]
    if tuple(header) != COLUMNS:
        raise SettingError(
            what=f"{path.absolute()} is not a file of benchmark runs of this version",
            remedy="give another name with --csv FILE",
        )
    try:
        return [Run.model_validate(_values(row)) for row in rows]
    except (ValidationError, ValueError) as error:
        raise SettingError(
            what=f"{path.absolute()} is damaged: {str(error).splitlines()[0]}",
            remedy="remove the damaged row, or give another name with --csv FILE",
        ) from error


def _values(row: Sequence[str]) -> dict[str, Any]:
    cells = zip(COLUMNS, row, strict=True)
    return {
        name: json.loads(cell) if name in _STRUCTURED else from_spreadsheet_cell(cell) or None for name, cell in cells
    }


def _refuse_others(path: Path, runs: Sequence[Run], planned: Collection[Identity]) -> None:
    expected = frozenset(planned)
    for run in runs:
        if run.identity not in expected:
            raise SettingError(
                what=f"{path.absolute()} holds runs of other settings: {_nearest_difference(run.identity, planned)}",
                remedy="repeat the command that made it, or give another name with --csv FILE",
            )


def _nearest_difference(found: Identity, planned: Collection[Identity]) -> str:
    """Where a run differs from the one most like it."""
    differences: list[list[str]] = [
        [
            f"{name} {there!r} there, {here!r} here"
            for (name, there), here in zip(found, dict(each).values(), strict=True)
            if there != here
        ]
        for each in planned
    ]
    nearest = min(differences, key=len)
    return "; ".join(nearest)


def write_json(path: Path, runs: Sequence[Run], averages: Sequence[Row]) -> None:
    """Write all runs, their means and standard errors, the versions of the software, and the processor.

    Raises:
        StorageError: Not writable.
    """
    content = {
        "software": {"python": platform.python_version(), **{name: version(name) for name in _SOFTWARE}},
        "processor": processor_name(),
        "runs": [run.model_dump(mode="json") for run in runs],
        "averages": [asdict(row) for row in averages],
    }
    with accessible(path, "--json FILE", "read or write"):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def refuse_unwritable(path: Path) -> None:
    """Raise StorageError if JSON cannot be written there, before hours are spent."""
    with accessible(path, "--json FILE", "read or write"):
        existed = path.exists()
        path.open("a").close()
        if not existed:
            path.unlink()
