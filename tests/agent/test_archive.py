from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pytest

import agent.archive
from agent.archive import Archive, Snapshot
from calibration.preprocess import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 10.0
MIB = 1024 * 1024
NOON_MS = 1_790_000_000_123  # 2026-09-21 14:13:20.123 UTC
DAY_MS = 86_400_000


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def snapshot(seq: int = 0, *, created_at_ms: int = NOON_MS, score: float = 150.0, noise: bool = False) -> Snapshot:
    image = np.full((48, 64, 3), 90, np.uint8)
    if noise:
        image = np.random.default_rng(seq).integers(0, 255, (240, 320, 3), np.uint8)
    return Snapshot(
        image=image,
        score_map=np.full((4, 4), 10, np.float32),
        region=Region(8, 8, 32, 32),
        threshold=100.0,
        score=score,
        result_id=f"result-{seq}",
        seq=seq,
        created_at_ms=created_at_ms,
    )


def files_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def size_of(directory: Path) -> int:
    return sum((directory / name).stat().st_size for name in files_in(directory))


class Gate:
    """Holds the writing thread in its first write until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._write = agent.archive._write

    def __call__(self, files: dict[Path, bytes]) -> None:
        self.reached.set()
        self.opened.wait(PATIENCE_S)
        self._write(files)


@pytest.fixture(autouse=True)
def _patient_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this machine, exit writes what waits."""
    monkeypatch.setattr(agent.archive, "_FLUSH_TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(agent.archive, "_write", gate)
    yield gate
    gate.opened.set()


def test_a_snapshot_is_a_frame_an_overlay_and_its_numbers_in_a_folder_of_its_day(tmp_path: Path) -> None:
    with Archive(tmp_path / "new" / "archive", 10) as archive:
        reference = archive.submit(snapshot(7))
    assert reference == "2026-09-21/141320-123_7.jpg"
    root = tmp_path / "new" / "archive"
    assert files_in(root) == [
        "2026-09-21/141320-123_7.jpg",
        "2026-09-21/141320-123_7.json",
        "2026-09-21/141320-123_7.overlay.jpg",
    ]
    frame = cv2.imread(str(root / reference))
    assert frame is not None
    assert frame.shape == (48, 64, 3)
    assert abs(frame.astype(int) - 90).max() <= 2
    heat = cv2.imread(str(root / "2026-09-21/141320-123_7.overlay.jpg"))
    assert heat is not None
    assert heat.shape[0] > 48
    assert json.loads((root / "2026-09-21/141320-123_7.json").read_text()) == {
        "resultId": "result-7",
        "seq": 7,
        "creationTime": NOON_MS,
        "score": 150.0,
        "threshold": 100.0,
        "region": {"x": 8, "y": 8, "width": 32, "height": 32},
        "frame": "141320-123_7.jpg",
        "overlay": "141320-123_7.overlay.jpg",
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
    monkeypatch.setattr(agent.archive, "_FLUSH_TIMEOUT_S", 0.05)
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
    kept = sorted(int(re.findall(r"_(\d+)\.json", name)[0]) for name in files_in(tmp_path) if name.endswith(".json"))
    assert kept == list(range(40 - len(kept), 40))
    assert 3 <= len(kept) < 8
    assert len(files_in(tmp_path)) == 3 * len(kept)
    assert all(any(day.iterdir()) for day in tmp_path.iterdir())


def test_an_archive_that_exists_is_counted_and_strangers_are_left_alone(tmp_path: Path) -> None:
    with Archive(tmp_path, 10) as archive:
        for seq in range(8):
            archive.submit(snapshot(seq, noise=True))
    stranger = tmp_path / "2026-09-21" / "notes.txt"
    stranger.write_text("x" * MIB)
    left_over = tmp_path / "2026-09-21" / "141320-000_0.jpg.part"
    left_over.write_text("torn by a power cut")
    with Archive(tmp_path, 0.5) as archive:
        archive.submit(snapshot(99, created_at_ms=NOON_MS + DAY_MS, noise=True))
    assert stranger.exists()
    assert not left_over.exists()
    assert (tmp_path / "2026-09-22/141320-123_99.json").exists()
    assert size_of(tmp_path) - MIB <= MIB // 2


def test_a_snapshot_larger_than_the_archive_is_dropped(tmp_path: Path) -> None:
    with Archive(tmp_path, 0.01) as archive:
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
    free_mib = iter([0, 0, 0, 9_000, 9_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10_000 * MIB, 0, next(free_mib) * MIB))
    with Archive(tmp_path, 10) as archive:
        for seq in range(5):
            archive.submit(snapshot(seq))
    assert (archive.written, archive.dropped) == (2, {"disk full": 3})
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(("code", "reason"), [(errno.ENOSPC, "disk full"), (errno.EIO, "write failed")])
def test_a_failing_write_leaves_nothing_behind_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, reason: str
) -> None:
    write_bytes = Path.write_bytes

    def fail_at_the_overlay(path: Path, content: bytes) -> int:
        if "overlay" in path.name:
            write_bytes(path, content[:10])
            raise OSError(code, os.strerror(code))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_overlay)
    with Archive(tmp_path, 10) as archive:
        for seq in range(3):
            archive.submit(snapshot(seq))
    assert (archive.written, archive.dropped) == (0, {reason: 3})
    assert files_in(tmp_path) == []
    assert len(caplog.records) == 1


def test_a_directory_that_cannot_be_made_only_costs_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with Archive(tmp_path / "file" / "archive", 10) as archive:
        assert archive.submit(snapshot()) is not None
    assert archive.dropped == {"write failed": 1}


def test_a_region_that_does_not_fit_only_costs_the_picture(tmp_path: Path) -> None:
    bad = Snapshot(
        image=np.zeros((4, 4, 3), np.uint8),
        score_map=np.zeros((2, 2), np.float32),
        region=Region(0, 0, 99, 99),
        threshold=1.0,
        score=0.0,
        result_id="r",
        seq=0,
        created_at_ms=0,
    )
    with Archive(tmp_path, 10) as archive:
        archive.submit(bad)
        archive.submit(snapshot(1))
    assert (archive.written, archive.dropped) == (1, {"write failed": 1})
