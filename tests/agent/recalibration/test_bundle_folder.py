"""Bundles made on the device have their order by name, and no workplace is left or taken from under a worker."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.recalibration import bundle_folder
from agent.recalibration.bundle_folder import BundleFolder
from calibration.errors import StorageError

CLOCKS = st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1)), min_size=1, max_size=8)  # noqa: DTZ001 - naive


def accept(folder: Path, now: datetime, identity: str) -> Path:
    bundles = BundleFolder(folder, lambda: now.replace(tzinfo=timezone.utc))
    with bundles.workplace() as (workplace, _):
        (workplace / "bundle").mkdir()
        return bundles.accept(workplace / "bundle", identity)


@given(CLOCKS)
def test_the_newest_bundles_are_those_accepted_last_whatever_the_clock_says(clocks: list[datetime]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [accept(folder, now, f"{number:064x}") for number, now in enumerate(clocks)]
        assert made == sorted(made)
        BundleFolder(folder).prune(2, [])
        assert sorted(folder.iterdir()) == made[-2:]


def test_a_bundle_is_named_for_its_time_where_the_clock_is_right(tmp_path: Path) -> None:
    (tmp_path / "20260131T120000Z-00000000").mkdir()
    assert accept(tmp_path, datetime(2026, 3, 1, 8, 5, 9), "f" * 64).name == "20260301T080509Z-ffffffff"  # noqa: DTZ001
    assert accept(tmp_path, datetime(1970, 1, 1), "e" * 64).name == "20260301T080510Z-eeeeeeee"  # noqa: DTZ001


def test_a_left_over_goes_when_the_worker_that_outlived_its_agent_has_ended(tmp_path: Path) -> None:
    left = tmp_path / ".0123"
    left.mkdir()
    lock = os.open(left, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    write = "import os, sys; sys.stdin.read(); os.makedirs(sys.argv[1], exist_ok=True)"
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", write, str(left / "parts")], stdin=subprocess.PIPE, pass_fds=[lock]
    ) as worker:
        os.close(lock)
        remover = threading.Thread(target=BundleFolder(tmp_path).remove_left_overs)
        remover.start()
        remover.join(0.1)
        assert left.exists()
        assert worker.stdin is not None
        worker.stdin.close()
        remover.join(10)
    assert not list(tmp_path.iterdir())


def test_a_left_over_of_a_worker_that_hangs_delays_the_start_for_seconds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bundle_folder, "_FREE_WITHIN_S", 0.0)
    (tmp_path / ".0123").mkdir()
    lock = os.open(tmp_path / ".0123", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    BundleFolder(tmp_path).remove_left_overs()
    assert "left until the next start" in caplog.text
    os.close(lock)
    BundleFolder(tmp_path).remove_left_overs()
    assert not list(tmp_path.iterdir())


def test_a_hidden_file_and_a_link_are_left_overs_and_what_the_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "bundles" / ".file").touch()
    (tmp_path / "bundles" / ".link").symlink_to(tmp_path / "other")
    BundleFolder(tmp_path / "bundles").remove_left_overs()
    assert not list((tmp_path / "bundles").iterdir())
    assert (tmp_path / "other" / "deep").exists()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bundles").touch()
    with pytest.raises(StorageError, match="cannot make a folder"), BundleFolder(tmp_path / "bundles").workplace():
        pass
