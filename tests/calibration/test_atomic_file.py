"""Files are written completely or not at all, and never into what a link leads to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from calibration.atomic_file import open_regular, replace_file, write_flushed

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", b"one")
    (tmp_path / ".a.part").write_bytes(b"left by a power cut")
    replace_file(tmp_path / "a", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]


@pytest.mark.parametrize("link", ["a", ".a.part"])
def test_a_link_is_replaced_and_not_followed(tmp_path: Path, link: str) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / link).symlink_to("other")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_a_new_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    with pytest.raises(FileExistsError):
        write_flushed(tmp_path / "a", b"new")
    assert not (tmp_path / "b").exists()


def test_a_file_with_a_mode_is_private_until_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    fchmod = os.fchmod

    def noting(descriptor: int, mode: int) -> None:
        modes.append((os.fstat(descriptor).st_mode & 0o777, os.fstat(descriptor).st_size))
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", noting)
    replace_file(tmp_path / "a", b"secret", 0o644)
    assert [mode for mode, _ in modes] == [0o600]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_pipe_and_a_device_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_a_file_gets_its_owner_before_its_name(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", b"", 0o640, (12, 34))
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12, 34, 0o640)
