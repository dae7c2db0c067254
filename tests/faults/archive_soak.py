"""A hundred thousand pictures under a quota: what the loop pays, what the disk holds, how long questions take.

    python tests/faults/archive_soak.py [--short]

Needs to mount two tmpfs, so root. Prints the figures; exit code 1 when the disk held more than it may, or the index
is not what the files are.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.archive.archive import Archive
from agent.archive.index import INDEX_NAME
from agent.archive.query import ArchiveQuery, open_reader
from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Heat, Snapshot
from agent.archive.store import Store
from agent.messages.records import Evaluation, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

_NOON_MS = 1_790_000_000_123
_EVERY_MS = 41_000  # a day has two thousand
_IMAGES = 64
_PATIENCE_S = 60.0
_SAMPLE_EVERY_S = 0.005
_QUESTIONS = 20


@dataclass(frozen=True)
class Plan:
    """How many pictures, and into how much room.

    Attributes:
        pictures: Written under a quota that is far too small for all.
        max_mib: That quota.
        kept: Written into room for all of them, for the questions.
    """

    pictures: int
    max_mib: int
    kept: int


FULL = Plan(pictures=100_000, max_mib=200, kept=100_000)
SHORT = Plan(pictures=10_000, max_mib=16, kept=2_000)


@dataclass
class Outcome:
    """Figures, and what is not as it should be."""

    figures: dict[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Snapshots:
    """Small pictures of all classes; a night of rejects in the middle."""

    def __init__(self, total: int) -> None:
        random = np.random.default_rng(1)
        self._total = total
        self._images = [random.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(_IMAGES)]
        self._map = np.full((4, 4), 150, np.float32)

    def __getitem__(self, seq: int) -> Snapshot:
        is_flood = self._total / 3 < seq < self._total * 2 / 3
        evaluation = Evaluation.NOT_OK if is_flood else Evaluation(seq % 3 + 1)
        return Snapshot(
            image=self._images[seq % _IMAGES],
            heat=(Heat(None, self._map, 100.0),) if evaluation is Evaluation.NOT_OK else (),
            region=None,
            result=Result(
                threshold=100.0,
                score=float("nan") if evaluation is Evaluation.NOT_DECIDABLE else 90.0 + seq % 50,
                result_id=f"{seq * 2_654_435_761 % 2**32:08x}{seq:024x}",
                part_id=f"SN-{seq}",
                seq=seq,
                created_at_ms=_NOON_MS + seq * _EVERY_MS,
                evaluation=evaluation,
            ),
        )


class Sampled:
    """The most that a file system held while the block ran, in bytes; it holds nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.most_bytes = 0
        self.samples = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self.samples += 1
            self.most_bytes = max(self.most_bytes, shutil.disk_usage(self._folder).used)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def mounted(folder: Path, size_mib: int) -> Iterator[Path]:
    """A file system of its own, in memory.

    Raises:
        PermissionError: None can be mounted here.
    """
    folder.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a folder of our own
    if result.returncode:
        raise PermissionError(result.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)  # noqa: S603 - the same


def differences(directory: Path) -> list[str]:
    """Where index and files do not say the same; read without the archive's own code for files."""
    with open_reader(directory) as archive:
        rows = {picture.path: picture for picture in archive.each(ArchiveQuery())}
    files = {str(path.relative_to(directory)): path for path in directory.glob("*/*")}
    expected: set[str] = set()
    problems = []
    for name, path in files.items():
        if path.suffix != ".json":
            continue
        numbers = json.loads(path.read_bytes())
        frame = name.replace(".json", ".png")
        named = {
            str(Path(name).with_name(numbers[key])): numbers[f"{key}Bytes"]
            for key in ("frame", "overlay")
            if key in numbers
        }
        expected |= {name, *named}
        sizes = {each: files[each].stat().st_size if each in files else None for each in named}
        if sizes != named:
            problems.append(f"{name} says {named}, there are {sizes}")
        row = rows.pop(frame, None)
        if row is None or (row.result_id, row.seq) != (numbers["resultId"], numbers["seq"]):
            problems.append(f"{name} has the row {row}")
    problems += [f"{path} has a row and no files" for path in rows]
    problems += [f"{name} belongs to nothing" for name in set(files) - expected]
    return problems


def feed(archive: Archive, snapshots: Snapshots, numbers: range) -> list[int]:
    """Submit them no faster than they are written; gives the nanoseconds that each call took."""
    took_ns = []
    for seq in numbers:
        _wait_until(lambda: archive.waiting < 8)
        snapshot = snapshots[seq]
        began_ns = time.perf_counter_ns()
        archive.submit(snapshot)
        took_ns.append(time.perf_counter_ns() - began_ns)
    _wait_until(lambda: archive.waiting == 0)
    return took_ns


def soak_under_quota(plan: Plan, folder: Path, outcome: Outcome) -> None:
    """More pictures than there is room for."""
    directory = folder / "archive"
    began_s = time.perf_counter()
    with Sampled(folder) as disk, Archive(directory, plan.max_mib) as archive:
        took_ns = feed(archive, Snapshots(plan.pictures), range(plan.pictures))
        dropped = archive.dropped
    with open_reader(directory) as index:
        classes = {total.evaluation.name: total.images for total in index.totals()}
    outcome.figures |= {
        "pictures written": archive.written,
        "dropped": dropped,
        "ms each, written": round((time.perf_counter() - began_s) / plan.pictures * 1e3, 3),
        "quota, MiB": plan.max_mib,
        "most that the disk held, MiB": round(disk.most_bytes / MIB, 3),
        "samples of that": disk.samples,
        "left of each class": classes,
        **_submit_figures(took_ns),
    }
    outcome.problems += differences(directory)[:5]
    if disk.most_bytes > plan.max_mib * MIB:
        outcome.problems.append(f"the disk held {disk.most_bytes} bytes")
    if archive.written != plan.pictures or dropped:
        outcome.problems.append(f"{archive.written} of {plan.pictures} written, dropped {dropped}")
    if not {"OK", "NOT_OK", "NOT_DECIDABLE"} <= classes.keys():
        outcome.problems.append(f"a class was pushed out: {classes}")


def ask(plan: Plan, folder: Path, outcome: Outcome) -> None:
    """Questions to an archive that holds them all, and its start."""
    directory = folder / "archive"
    snapshots = Snapshots(plan.kept)
    store = Store(directory, Limits(4 * plan.kept * 16 * 1024))
    for seq in range(plan.kept):
        store.keep(snapshots[seq])
    store.close()
    since_ms = _NOON_MS + plan.kept * _EVERY_MS // 2
    rare = ArchiveQuery(evaluation=Evaluation.OK, min_score=139.0, since_ms=since_ms)
    last = snapshots[plan.kept - 2].result.result_id
    with open_reader(directory) as index:
        outcome.figures["pictures kept"] = index.count(ArchiveQuery())
        questions: dict[str, Callable[[], object]] = {
            "the newest 50": lambda: index.newest(ArchiveQuery(), 50),
            "the newest 50 NotOK": lambda: index.newest(ArchiveQuery(evaluation=Evaluation.NOT_OK), 50),
            "50 by class, time and score": lambda: index.newest(rare, 50),
            "one part": lambda: index.newest(ArchiveQuery(part_id="SN-17"), 50),
            "one result": lambda: index.named(last[:12]),
            "count": lambda: index.count(ArchiveQuery()),
            "totals": index.totals,
        }
        for name, question in questions.items():
            outcome.figures[f"ms, {name}"] = round(_median_ms(question), 2)
    outcome.figures["MiB, index"] = round((directory / INDEX_NAME).stat().st_size / MIB, 1)
    outcome.figures["s, comparing index and files"] = round(_reconciled_s(directory, plan), 2)
    (directory / INDEX_NAME).unlink()
    outcome.figures["s, making the index anew"] = round(_reconciled_s(directory, plan), 2)
    outcome.problems += differences(directory)[:5]


def soak(plan: Plan, folder: Path) -> Outcome:
    """All of it, on file systems of its own below ``folder``.

    Raises:
        PermissionError: None can be mounted here.
    """
    outcome = Outcome()
    with mounted(folder / "small", plan.max_mib * 2) as small:
        soak_under_quota(plan, small, outcome)
    with mounted(folder / "large", max(64, plan.kept // 40)) as large:
        ask(plan, large, outcome)
    return outcome


def _reconciled_s(directory: Path, plan: Plan) -> float:
    """Work only, without the pauses that the archive's thread makes for the loop's sake."""
    store = Store(directory, Limits(4 * plan.kept * 16 * 1024))
    began_s = time.perf_counter()
    while not store.is_reconciled:
        store.tidy()
    took_s = time.perf_counter() - began_s
    store.close()
    return took_s


def _median_ms(question: Callable[[], object]) -> float:
    took_s = []
    for _ in range(_QUESTIONS):
        began_s = time.perf_counter()
        question()
        took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s) * 1e3


def _submit_figures(took_ns: list[int]) -> dict[str, object]:
    percentiles = np.percentile(took_ns, [50, 99, 99.9]) / 1e3
    names = ("median", "99 %", "99.9 %")
    return {f"us, submit, {name}": round(float(value), 1) for name, value in zip(names, percentiles, strict=True)}


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            message = "the archive writes nothing"
            raise TimeoutError(message)
        time.sleep(0.0002)


def main() -> int:
    """Run it and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    plan = SHORT if parser.parse_args().short else FULL
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(plan, Path(folder))
    for name, figure in outcome.figures.items():
        sys.stdout.write(f"{name:>40}  {figure}\n")
    for problem in outcome.problems:
        sys.stdout.write(f"PROBLEM: {problem}\n")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
