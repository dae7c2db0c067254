"""What root does in an archive whose owner, another user, has planted links and paths there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Snapshot
from agent.archive.store import Store
from agent.cli import main
from agent.messages.records import Evaluation, Result
from tests.support.other_users import OWNER, enterable_folder
from tests.support.stations import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESULT = "0123456789abcdef0123456789abcdef"
CONTENT = "root's own"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as other users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a station whose archive has one image of a defect; everyone may enter it, unlike pytest's own folders."""
    with enterable_folder() as path:
        (path / "state").mkdir()
        store = Store(path / "state" / "archive", Limits(20 * MIB))
        result = Result(
            threshold=1.0,
            score=2.0,
            result_id=RESULT,
            part_id=None,
            seq=1,
            created_at_ms=1_800_000_000_000,
            evaluation=Evaluation.NOT_OK,
        )
        assert store.keep(Snapshot(np.zeros((24, 32, 3), np.uint8), (), None, result)) is None
        store.close()
        write_config(path, path, 0, 1883)
        secret = path / "secret"
        secret.write_text(CONTENT)
        secret.chmod(0o600)
        yield path


def give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)


def archive(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> int:
    command = ["shiftwatch-agent", "archive", *map(str, arguments), "--config", str(folder / "station.yaml")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert os.geteuid() == 0
    return int(ended.value.code or 0)


def frame_in(folder: Path) -> Path:
    (frame,) = (folder / "state" / "archive").glob("*/*.png")
    return frame


def set_in_index(folder: Path, column: str, value: str) -> None:
    with sqlite3.connect(folder / "state" / "archive" / "index.sqlite") as database:
        database.execute(f"UPDATE picture SET {column} = ?", (value,))  # noqa: S608 - a name of this file
    database.close()


def assert_untouched(folder: Path) -> None:
    status = (folder / "secret").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    assert (folder / "secret").read_text() == CONTENT


def test_a_mark_of_root_belongs_to_the_owner_of_the_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_away(folder / "state")
    assert archive(monkeypatch, folder, "mark", RESULT, "good") == 0
    status = frame_in(folder).with_suffix(".mark").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (OWNER, 0o640)
    assert not [path for path in (folder / "state").rglob("*") if path.lstat().st_uid != OWNER]


@pytest.mark.parametrize("name", [".{}.mark.part", "{}.mark"])
def test_a_mark_follows_no_link(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    frame = frame_in(folder)
    frame.with_name(name.format(frame.stem)).symlink_to(folder / "secret")
    give_away(folder / "state")
    assert archive(monkeypatch, folder, "mark", RESULT, "good") == 0
    assert_untouched(folder)


@pytest.mark.parametrize("link", ["state/archive", "state/archive/2027-01-15", "state/archive/index.sqlite"])
def test_a_link_of_the_owner_leads_root_into_no_folder_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    give_away(folder / "state")
    shutil.move(folder / link, folder / "roots")
    for path in (folder / "roots", *(folder / "roots").rglob("*")):
        os.chown(path, 0, 0)
        path.chmod(0o755)
    (folder / link).symlink_to(folder / "roots")
    os.chown(folder / link, OWNER, OWNER, follow_symlinks=False)
    assert archive(monkeypatch, folder, "mark", RESULT, "good") == 2
    assert not list((folder / "roots").rglob("*.mark"))


def test_root_exports_what_the_owner_may_read_and_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_in(folder)
    frame.unlink()
    frame.symlink_to(folder / "secret")
    give_away(folder / "state")
    assert archive(monkeypatch, folder, "export", folder / "usb") == 2
    assert not list((folder / "usb").rglob("*.png"))


def test_root_exports_into_a_folder_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_away(folder / "state")
    (folder / "usb").mkdir(mode=0o700)
    assert archive(monkeypatch, folder, "export", folder / "usb") == 0
    (copy,) = (folder / "usb" / "test" / "defect").iterdir()
    assert copy.stat().st_uid == 0


def test_an_export_below_a_folder_of_the_owner_is_written_with_the_owner_s_rights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cron").mkdir(mode=0o755)
    (folder / "state" / "export").symlink_to(folder / "cron")
    give_away(folder / "state")
    assert archive(monkeypatch, folder, "export", folder / "state" / "export") == 2
    assert not list((folder / "cron").iterdir())


def test_a_link_in_the_target_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cron", "usb"):
        (folder / name).mkdir()
    (folder / "usb" / "test").symlink_to(folder / "cron")
    assert archive(monkeypatch, folder, "export", folder / "usb") == 2
    assert not list((folder / "cron").iterdir())


@pytest.mark.parametrize("path", ["a/../../../../cron/x.png", "/etc/passwd", "2027-01-15/../../../secret"])
@pytest.mark.parametrize("command", [("export", "usb"), ("mark", RESULT, "good"), ("show", RESULT), ("list",)])
def test_a_path_in_the_index_that_is_not_the_archive_s_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    command: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    set_in_index(folder, "path", path)
    assert archive(monkeypatch, folder, *command) == 2
    assert path in capfd.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_the_identity_of_a_result_leads_no_copy_out_of_the_target(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_in_index(folder, "result_id", "/../../x")
    assert archive(monkeypatch, folder, "export", folder / "usb") == 0
    assert [path.parent.name for path in folder.glob("usb/**/*.png")] == ["defect"]
    assert len(list(folder.rglob("*.png"))) == 2
