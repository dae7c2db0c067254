from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import sqlite3
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pytest

import agent.archive.archive
from agent.archive import files
from agent.archive.archive import Archive
from agent.archive.index import Index
from agent.archive.query import ArchiveQuery, open_reader
from agent.archive.quota import Limits
from agent.archive.snapshot import Heat, Selection, Snapshot
from agent.archive.store import Store
from agent.messages.records import DefectRegion, Evaluation, Result, ResultCode
from calibration.imaging.preprocess import Region
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 10.0
MIB = 1024 * 1024
NOON_MS = 1_790_000_000_123  # 2026-09-21 14:13:20.123 UTC
DAY_MS = 86_400_000
HEAT = Heat(Region(8, 8, 32, 32), np.full((4, 4), 10, np.float32), 100.0)


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def snapshot(
    seq: int = 0,
    evaluation: Evaluation = Evaluation.NOT_OK,
    *,
    created_at_ms: int = NOON_MS,
    score: float = 150.0,
    noise: bool = False,
) -> Snapshot:
    image = np.full((48, 64, 3), 90, np.uint8)
    if noise:
        image = np.random.default_rng(seq).integers(0, 255, (160, 200, 3), np.uint8)
    return Snapshot(
        image=image,
        heat=(HEAT,) if evaluation is Evaluation.NOT_OK else (),
        region=Region(8, 8, 32, 32),
        result=Result(
            threshold=100.0,
            score=score,
            result_id=f"result-{seq}",
            part_id=None,
            seq=seq,
            created_at_ms=created_at_ms,
            evaluation=evaluation,
        ),
    )


def files_in(directory: Path) -> list[str]:
    """But for the index."""
    return sorted(str(path.relative_to(directory)) for path in directory.glob("*/*") if path.is_file())


def size_of(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*"))


def kept(directory: Path, evaluation: Evaluation | None = None) -> list[int]:
    """Numbers of the pictures in the index, in the order in which they were taken."""
    with open_reader(directory) as archive:
        return [picture.seq for picture in archive.each(ArchiveQuery(evaluation=evaluation))]


class Gate:
    """Holds the writing thread in its first write until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._write = files.write

    def __call__(self, directory: Path, contents: dict[str, bytes]) -> None:
        self.reached.set()
        self.opened.wait(PATIENCE_S)
        self._write(directory, contents)


@pytest.fixture(autouse=True)
def _patient_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this machine, exit writes what waits."""
    monkeypatch.setattr(agent.archive.archive, "_FLUSH_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(files, "write", gate)
    yield gate
    gate.opened.set()


def test_a_snapshot_is_a_frame_an_overlay_and_its_numbers_in_a_folder_of_its_day(tmp_path: Path) -> None:
    with Archive(tmp_path / "new" / "archive", 10) as archive:
        reference = archive.submit(snapshot(7))
    assert reference == "2026-09-21/141320-123_7.png"
    root = tmp_path / "new" / "archive"
    assert files_in(root) == [
        "2026-09-21/141320-123_7.json",
        "2026-09-21/141320-123_7.overlay.jpg",
        "2026-09-21/141320-123_7.png",
    ]
    frame = cv2.imread(str(root / reference))
    assert frame is not None
    assert frame.shape == (48, 64, 3)
    assert (frame == 90).all()
    heat_name = "2026-09-21/141320-123_7.overlay.jpg"
    heat = cv2.imread(str(root / heat_name))
    assert heat is not None
    assert heat.shape[0] > 48
    frame_bytes, overlay_bytes = ((root / name).stat().st_size for name in (reference, heat_name))
    assert json.loads((root / "2026-09-21/141320-123_7.json").read_text()) == {
        "resultId": "result-7",
        "seq": 7,
        "partId": None,
        "creationTime": NOON_MS,
        "resultEvaluation": 2,
        "resultCode": 0,
        "score": 150.0,
        "threshold": 100.0,
        "regions": [],
        "region": {"x": 8, "y": 8, "width": 32, "height": 32},
        "zones": {},
        "frame": "141320-123_7.png",
        "frameBytes": frame_bytes,
        "overlay": "141320-123_7.overlay.jpg",
        "overlayBytes": overlay_bytes,
    }


def test_a_score_that_is_no_number_is_null(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot(score=float("nan")))
    assert json.loads((tmp_path / "2026-09-21/141320-123_0.json").read_text())["score"] is None


def test_exit_writes_what_waits(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        references = [archive.submit(snapshot(seq)) for seq in range(8)]
    assert archive.written == 8 == len(set(references))
    assert len(files_in(tmp_path)) == 24
    assert archive.waiting == 0


def test_a_full_queue_drops_the_new_snapshot_at_once_and_counts_it(tmp_path: Path, gate: Gate) -> None:
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot(0))
        assert gate.reached.wait(PATIENCE_S)
        taken = [archive.submit(snapshot(seq)) for seq in range(1, 12)]
        assert [reference is not None for reference in taken] == [True] * 8 + [False] * 3
        assert (archive.dropped, archive.waiting) == ({"archive busy": 3}, 9)
        gate.opened.set()
    assert (archive.written, archive.dropped, archive.waiting) == (9, {"archive busy": 3}, 0)


def test_a_disk_that_hangs_does_not_hold_up_exit(tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.archive.archive, "_FLUSH_TIMEOUT_S", 0.05)
    with Archive(tmp_path, 10) as archive:
        for seq in range(9):
            archive.submit(snapshot(seq))
            assert gate.reached.wait(PATIENCE_S)
    assert (archive.dropped, archive.waiting) == ({"closed": 8}, 1)
    gate.opened.set()
    archive._thread.join(PATIENCE_S)
    assert (archive.written, archive.waiting) == (1, 0)


def test_a_snapshot_after_exit_is_counted_as_dropped(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        pass
    assert archive.submit(snapshot()) is None
    assert archive.dropped == {"closed": 1}


def test_the_oldest_snapshots_go_first_and_the_size_is_kept(tmp_path: Path) -> None:
    for start in range(0, 40, 8):  # The snapshots of one session do not all fit.
        with Archive(tmp_path, 1.0) as archive:
            for seq in range(start, start + 8):
                archive.submit(snapshot(seq, created_at_ms=NOON_MS + seq * DAY_MS // 4, noise=True))
        assert archive.written == 8
        assert size_of(tmp_path) <= MIB
    left = sorted(int(re.findall(r"_(\d+)\.json", name)[0]) for name in files_in(tmp_path) if name.endswith(".json"))
    assert left == list(range(40 - len(left), 40)) == kept(tmp_path)
    assert 3 <= len(left) < 8
    assert len(files_in(tmp_path)) == 3 * len(left)
    assert all(any(day.iterdir()) for day in tmp_path.glob("*-*-*"))


def test_a_clock_that_was_set_back_does_not_make_new_snapshots_old(tmp_path: Path) -> None:
    with Archive(tmp_path, 1.0) as archive:
        for seq in range(8):
            archive.submit(snapshot(seq, created_at_ms=NOON_MS - seq * DAY_MS, noise=True))
    assert set(kept(tmp_path)) == set(range(8 - len(kept(tmp_path)), 8))


def test_an_archive_that_exists_is_counted_and_strangers_are_left_alone(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        for seq in range(8):
            archive.submit(snapshot(seq, noise=True))
    stranger = tmp_path / "2026-09-21" / "notes.txt"
    stranger.write_text("x" * MIB)
    left_over = tmp_path / "2026-09-21" / "141320-000_0.png.part"
    left_over.write_text("torn by a power cut")
    with Archive(tmp_path, 0.7) as archive:
        archive.submit(snapshot(99, created_at_ms=NOON_MS + DAY_MS, noise=True))
        until(lambda: archive.is_reconciled)
    assert stranger.exists()
    assert not left_over.exists()
    assert (tmp_path / "2026-09-22/141320-123_99.json").exists()
    assert size_of(tmp_path) - stranger.stat().st_blocks * 512 <= 0.7 * MIB


@pytest.mark.parametrize("flood", [Evaluation.NOT_OK, Evaluation.OK, Evaluation.NOT_DECIDABLE])
def test_a_flood_of_one_class_leaves_the_share_of_the_others(tmp_path: Path, flood: Evaluation) -> None:
    store = Store(tmp_path, Limits(4 * MIB))
    others = [each for each in (Evaluation.NOT_OK, Evaluation.OK, Evaluation.NOT_DECIDABLE) if each is not flood]
    for seq in range(6):
        assert store.keep(snapshot(seq, others[seq % 2], noise=True)) is None
    for seq in range(6, 60):
        assert store.keep(snapshot(seq, flood, noise=True)) is None
    store.close()
    assert set(range(6)) <= set(kept(tmp_path))
    flooded = kept(tmp_path, flood)
    assert 10 < len(flooded) < 50, "it has the room that the others leave"
    assert sorted(flooded) == list(range(60 - len(flooded), 60))


def test_a_class_that_comes_into_its_own_takes_the_room_back(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(4 * MIB))
    for seq in range(40):
        store.keep(snapshot(seq, Evaluation.NOT_OK, noise=True))
    for seq in range(40, 80):
        store.keep(snapshot(seq, Evaluation.OK, noise=True))
    assert store._index is not None
    used = store._index.used_bytes
    store.close()
    assert used[Evaluation.NOT_OK] / (used[Evaluation.NOT_OK] + used[Evaluation.OK]) == pytest.approx(5 / 8, abs=0.06)


class Clocks:
    """Wall clock and monotonic clock, set by hand."""

    def __init__(self, now_ms: int) -> None:
        self.now_s = now_ms / 1000
        self.run_s = 0.0

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.run_s += seconds


def aged_store(directory: Path, clocks: Clocks, max_age_days: int = 90) -> Store:
    store = Store(directory, Limits(10 * MIB, max_age_days), lambda: clocks.now_s, lambda: clocks.run_s)
    for seq, days in enumerate((-200, -91, -89, 0)):
        assert store.keep(snapshot(seq, created_at_ms=NOON_MS + days * DAY_MS)) is None
    return store


def tidy(store: Store) -> None:
    while store.tidy() < 1:
        pass


def test_what_is_too_old_goes_after_the_clock_has_been_steady_for_an_hour(tmp_path: Path) -> None:
    clocks = Clocks(NOON_MS)
    store = aged_store(tmp_path, clocks)
    clocks.pass_s(3599)
    tidy(store)
    assert sorted(kept(tmp_path)) == [0, 1, 2, 3]
    clocks.pass_s(1)
    tidy(store)
    assert sorted(kept(tmp_path)) == [2, 3]
    assert len(files_in(tmp_path)) == 6
    clocks.now_s += 365 * 86_400  # set wrongly
    clocks.pass_s(3599)
    tidy(store)
    assert sorted(kept(tmp_path)) == [2, 3]
    store.close()


def test_age_0_keeps_everything_and_a_clock_that_was_never_set_has_no_age(tmp_path: Path) -> None:
    for name, days, now_ms in (("a", 0, NOON_MS), ("b", 90, DAY_MS)):
        clocks = Clocks(now_ms)
        store = aged_store(tmp_path / name, clocks, days)
        assert store.keep(snapshot(4, created_at_ms=1000)) is None
        clocks.pass_s(7200)
        tidy(store)
        store.close()
        assert len(kept(tmp_path / name)) == 5


def test_a_snapshot_larger_than_the_archive_is_dropped(tmp_path: Path) -> None:
    with Archive(tmp_path, 0.2) as archive:
        archive.submit(snapshot(noise=True))
    assert archive.dropped == {"larger than the archive": 1}
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("total_mib", "free_mib", "is_kept"),
    [(100_000, 501, True), (100_000, 500, False), (10_000, 201, True), (10_000, 200, False)],
)
def test_some_of_the_disk_is_always_left_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total_mib: int, free_mib: int, *, is_kept: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(total_mib * MIB, 0, free_mib * MIB))
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot())
    assert archive.written == is_kept
    assert archive.dropped == ({} if is_kept else {"disk full": 1})


def test_a_full_disk_is_logged_once_and_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    free_mib = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10_000 * MIB, 0, free_mib * MIB))
    with Archive(tmp_path, 10) as archive:
        for seq in range(3):
            archive.submit(snapshot(seq))
        until(lambda: archive.waiting == 0)
        free_mib = 9_000
        for seq in range(2):
            archive.submit(snapshot(seq))
    assert (archive.written, archive.dropped) == (2, {"disk full": 3})
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_images_give_way_to_a_neighbour_but_not_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 400 * MIB
    before = size_of(tmp_path)
    store = Store(tmp_path, Limits(10 * MIB))
    for seq in range(20):
        store.keep(snapshot(seq, noise=True))
    taken = size_of(tmp_path)

    def usage(_: Path) -> DiskUsage:
        return DiskUsage(10_000 * MIB, 0, free + taken - size_of(tmp_path))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    free = 200 * MIB - MIB
    assert store.keep(snapshot(20, noise=True)) is None
    left = kept(tmp_path)
    assert 5 < len(left) < 17
    assert sorted(left) == list(range(21 - len(left), 21))
    free = 100 * MIB
    assert store.keep(snapshot(21, noise=True)) == "disk full"
    assert kept(tmp_path) == left
    store.close()
    assert before < taken


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk full"), (errno.EIO, "write failed")])
def test_a_failing_write_leaves_nothing_behind_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, reason: str
) -> None:
    write_part = files._write_part

    def fail_at_the_overlay(path: Path, content: bytes) -> None:
        write_part(path, content[:10])
        if "overlay" in path.name:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_write_part", fail_at_the_overlay)
    with Archive(tmp_path, 10) as archive:
        for seq in range(3):
            archive.submit(snapshot(seq))
    assert (archive.written, archive.dropped) == (0, {reason: 3})
    assert files_in(tmp_path) == []
    assert kept(tmp_path) == []
    assert len(caplog.records) == 1


def test_a_directory_that_cannot_be_made_only_costs_the_images(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with Archive(tmp_path / "file" / "archive", 10) as archive:
        assert archive.submit(snapshot()) is not None
    assert archive.dropped == {"write failed": 1}


def test_a_region_that_does_not_fit_only_costs_the_image(tmp_path: Path) -> None:
    bad = replace(snapshot(), heat=(HEAT._replace(region=Region(99, 99, 9, 9)),))
    with Archive(tmp_path, 10) as archive:
        archive.submit(bad)
        archive.submit(snapshot(1))
    assert (archive.written, archive.dropped) == (1, {"write failed": 1})


def test_an_index_without_room_leaves_no_image_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        problem = "database or disk is full"
        raise sqlite3.OperationalError(problem)

    monkeypatch.setattr(Index, "add", full)
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot())
    assert archive.dropped == {"disk full": 1}
    assert files_in(tmp_path) == []


def test_images_are_for_their_owner_and_group_only(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        with Archive(tmp_path / "archive", 10) as archive:
            archive.submit(snapshot())
            until(lambda: archive.written)
            modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "archive").rglob("*") if path.is_file()}
    finally:
        os.umask(old_mask)
    assert modes == {0o640}
    folders = [tmp_path / "archive", tmp_path / "archive" / "2026-09-21"]
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o750, 0o750]


def test_ok_and_undecidable_frames_have_no_heat_map(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot(1, Evaluation.OK))
        archive.submit(snapshot(2, Evaluation.NOT_DECIDABLE, score=float("nan")))
    assert [name.rpartition("_")[2] for name in files_in(tmp_path)] == ["1.json", "1.png", "2.json", "2.png"]


def test_large_frames_wait_in_no_more_memory_than_is_bounded(tmp_path: Path, gate: Gate) -> None:
    large = replace(snapshot(1, Evaluation.OK), image=np.zeros((4000, 5000, 3), np.uint8))
    with Archive(tmp_path, 10) as archive:
        archive.submit(snapshot(0))
        assert gate.reached.wait(PATIENCE_S)
        taken = [archive.submit(large) for _ in range(4)]
        assert [reference is not None for reference in taken] == [True, True, False, False]
        assert archive.submit(snapshot(2)) is not None
        gate.opened.set()


def test_every_not_ok_frame_is_wanted() -> None:
    selection = Selection(ok_every=0)
    assert all(selection.wants(Evaluation.NOT_OK, ResultCode.NONE) for _ in range(100))


def test_undecidable_frames_are_wanted_once_a_minute_for_each_cause() -> None:
    now_s = 0.0
    selection = Selection(ok_every=1, clock_s=lambda: now_s)
    causes = [ResultCode.FRAME_UNUSABLE, ResultCode.ENGINE_FAULT]
    wanted = []
    for second in range(130):
        now_s = float(second)
        wanted += [(second, cause) for cause in causes if selection.wants(Evaluation.NOT_DECIDABLE, cause)]
    assert wanted == [(second, cause) for second in (0, 60, 120) for cause in causes]


def test_one_ok_frame_in_so_many_is_wanted_and_not_always_that_of_the_same_cavity() -> None:
    selection = Selection(ok_every=20)
    wanted = [number for number in range(20_000) if selection.wants(Evaluation.OK, ResultCode.NONE)]
    assert 900 < len(wanted) < 1100
    assert {number % 4 for number in wanted} == {0, 1, 2, 3}
    assert min(wanted) >= 9


@pytest.mark.parametrize(("ok_every", "count"), [(0, 0), (1, 50)])
def test_no_ok_frame_or_every_one_may_be_wanted(ok_every: int, count: int) -> None:
    selection = Selection(ok_every)
    assert sum(selection.wants(Evaluation.OK, ResultCode.NONE) for _ in range(50)) == count


def test_numbers_that_no_json_knows_are_null(tmp_path: Path) -> None:
    region = DefectRegion(1, 2, 3, 4, float("inf"))
    with Archive(tmp_path, 10) as archive:
        one = snapshot()
        archive.submit(replace(one, result=replace(one.result, regions=(region,), part_id="\ud800")))
    (numbers,) = tmp_path.glob("*/*.json")
    content = json.loads(numbers.read_bytes())
    assert content["regions"] == [{"x": 1, "y": 2, "width": 3, "height": 4, "score": None, "zone": None}]
