"""The index is what the files say, whatever has happened to either."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.archive.archive import Archive
from agent.archive.entry import ArchivedImage, Mark
from agent.archive.index import INDEX_NAME, Index
from agent.archive.label import mark
from agent.archive.query import ArchiveQuery, open_reader
from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Heat, Snapshot
from agent.archive.store import Store
from agent.errors import ArchiveError
from agent.messages.records import Evaluation, Result, ResultCode
from tests.support.stations import until

if TYPE_CHECKING:
    from collections.abc import Callable

NOON_MS = 1_790_000_000_123
DAY_MS = 86_400_000
COUNT = 30


def snapshot(seq: int) -> Snapshot:
    evaluation = Evaluation(seq % 3 + 1)
    return Snapshot(
        image=np.full((24, 32, 3), seq % 200, np.uint8),
        heat=(Heat(None, np.full((4, 4), 10, np.float32), 100.0),) if evaluation is Evaluation.NOT_OK else (),
        region=None,
        result=Result(
            threshold=100.0,
            score=float("nan") if evaluation is Evaluation.NOT_DECIDABLE else seq * 10.0,
            result_id=f"{seq:032x}",
            part_id=f"part {seq}" if seq % 2 else None,
            seq=seq,
            created_at_ms=NOON_MS + seq * DAY_MS // 10,
            evaluation=evaluation,
            code=ResultCode.ENGINE_FAULT if evaluation is Evaluation.NOT_DECIDABLE else ResultCode.NONE,
        ),
    )


def at(one: Snapshot, created_at_ms: int) -> Snapshot:
    return replace(one, result=replace(one.result, created_at_ms=created_at_ms))


def fill(directory: Path, count: int = COUNT) -> None:
    store = Store(directory, Limits(20 * MIB))
    for seq in range(count):
        assert store.keep(snapshot(seq)) is None
    store.close()


def reconcile(directory: Path) -> None:
    store = Store(directory, Limits(20 * MIB))
    while not store.is_reconciled:
        store.tidy()
    assert store._index is not None
    with open_reader(directory) as archive:
        assert {total.evaluation: total.bytes for total in archive.totals()} == dict(+store._index.used_bytes)
    store.close()


def pictures(directory: Path) -> list[ArchivedImage]:
    with open_reader(directory) as archive:
        return list(archive.each(ArchiveQuery()))


def frames(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory).with_suffix(".png")) for path in directory.glob("*/*.json"))


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.glob("*/*")}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    fill(tmp_path / "archive")
    return tmp_path / "archive"


def test_a_row_says_what_was_kept(archive: Path) -> None:
    found = pictures(archive)
    assert [picture.seq for picture in found] == list(range(COUNT))
    assert [picture.path for picture in found] == frames(archive)
    for picture in found:
        reference, kept = snapshot(picture.seq).reference, snapshot(picture.seq).result
        assert (*picture[:7], picture.score) == (
            reference,
            kept.result_id,
            kept.part_id,
            kept.seq,
            kept.created_at_ms,
            kept.evaluation,
            kept.code,
            None if np.isnan(kept.score) else kept.score,
        )
        assert (picture.threshold, picture.label) == (100.0, None)


def test_an_index_that_is_gone_is_rebuilt_from_the_numbers_of_the_images(archive: Path) -> None:
    mark(archive, f"{3:032x}", Mark("good", "Jürgen", 5))
    before = pictures(archive)
    assert before[3].label == "good"
    (archive / INDEX_NAME).unlink()
    reconcile(archive)
    assert pictures(archive) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:5000],
        lambda _: b"",
        lambda _: b"garbage" * 1000,
        lambda content: content[:4096] + bytes(4096) + content[8192:],
        lambda content: content.replace(b"marked_by", b"marked_on"),
        lambda content: content[:68] + b"\0\0\0\1" + content[72:],
    ],
    ids=["cut off", "empty", "garbage", "a page of zeros", "another schema", "another version"],
)
def test_a_damaged_index_is_rebuilt(archive: Path, damage: Callable[[bytes], bytes]) -> None:
    before = pictures(archive)
    path = archive / INDEX_NAME
    path.write_bytes(damage(path.read_bytes()))
    reconcile(archive)
    assert pictures(archive) == before


@pytest.mark.slow
def test_an_index_that_is_found_damaged_while_it_is_used_costs_an_image_and_no_more(tmp_path: Path) -> None:
    fill(tmp_path, 400)
    store = Store(tmp_path, Limits(20 * MIB))
    assert store.keep(snapshot(400)) is None
    assert store._index is not None
    content = (tmp_path / INDEX_NAME).read_bytes()
    (tmp_path / INDEX_NAME).write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    store._index._database.execute("PRAGMA shrink_memory")
    with pytest.raises(sqlite3.DatabaseError):
        store.keep(snapshot(401))
    for seq in range(402, 420):
        assert store.keep(snapshot(seq)) is None
    assert not store.is_reconciled or len(pictures(tmp_path)) == 419
    store.close()
    assert [picture.seq for picture in pictures(tmp_path)] == [seq for seq in range(420) if seq != 401]
    assert [picture.path for picture in pictures(tmp_path)] == frames(tmp_path)


def test_damage_that_only_use_shows_rebuilds_the_index_too(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise sqlite3.DatabaseError

    before = pictures(archive)
    with sqlite3.connect(archive / INDEX_NAME) as database:
        database.execute("UPDATE picture SET part_id = 'not what the files say'")
    database.close()
    store = Store(archive, Limits(20 * MIB))
    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", damaged)
        with pytest.raises(sqlite3.DatabaseError):
            store.keep(snapshot(COUNT))
    assert store.keep(snapshot(COUNT)) is None
    store.close()
    assert pictures(archive)[:-1] == before


def test_the_numbers_get_their_name_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = []
    replace_path = Path.replace

    def note(path: Path, target: Path) -> Path:
        named.append(target.suffix)
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", note)
    fill(tmp_path, 2)
    assert named == [".png", ".json", ".png", ".jpg", ".json"]


def test_what_is_left_of_an_image_goes_and_strangers_stay(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    day = archive / "2026-09-21"
    for name in ("000000-000_1.png", "000000-000_2.overlay.jpg", "000000-000_3.mark", "000000-000_4.json.part"):
        (day / name).write_bytes(b"x")
    torn, cut, empty, gone = frames(archive)[:4]
    (archive / torn).with_suffix(".json").write_bytes(b'{"resultId": "to')
    (archive / cut).write_bytes((archive / cut).read_bytes()[:-9])
    (archive / empty).write_bytes(b"")
    (archive / gone).unlink()
    strangers = [day / "notes.txt", day / "000000-000_5.png.bak", archive / "elsewhere" / "000000-000_6.png"]
    (archive / "elsewhere").mkdir()
    for stranger in strangers:
        stranger.write_text("mine")
    (archive / INDEX_NAME).unlink()
    reconcile(archive)
    left = frames(archive)
    assert left == sorted({snapshot(seq).reference for seq in range(4, COUNT)})
    assert [picture.path for picture in pictures(archive)] == left
    assert all(stranger.exists() for stranger in strangers)
    known = {str(path.relative_to(archive)) for path in strangers}
    pieces = {name.split(".")[0] for name in files(archive) - known}
    assert pieces == {frame.split(".")[0] for frame in left}
    assert any("incomplete images of 2026-09-21 removed" in record.message for record in caplog.records)


def test_what_cannot_be_read_is_left_alone_and_stops_nothing(
    archive: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad_sector = (archive / frames(archive)[3]).with_suffix(".json")
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == bad_sector:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    (archive / INDEX_NAME).unlink()
    reconcile(archive)
    assert [picture.seq for picture in pictures(archive)] == [seq for seq in range(COUNT) if seq != 3]
    assert bad_sector.exists()
    assert any("is left as it is" in record.message for record in caplog.records)


def test_rows_of_images_that_a_person_has_removed_go(archive: Path) -> None:
    shutil.rmtree(archive / "2026-09-22")
    frame = archive / frames(archive)[0]
    for path in frame.parent.glob(f"{frame.stem}.*"):
        path.unlink()
    reconcile(archive)
    assert [picture.path for picture in pictures(archive)] == frames(archive)
    assert 0 < len(frames(archive)) < COUNT


def test_images_that_somebody_has_copied_back_are_found(archive: Path, tmp_path: Path) -> None:
    before = pictures(archive)
    shutil.copytree(archive / "2026-09-22", tmp_path / "copy")
    shutil.rmtree(archive / "2026-09-22")
    reconcile(archive)
    shutil.copytree(tmp_path / "copy", archive / "2026-09-22")
    reconcile(archive)
    assert pictures(archive) == before


@pytest.mark.slow
def test_images_are_kept_and_pruned_while_files_and_index_are_compared(tmp_path: Path) -> None:
    for seq in range(0, 600, 300):
        store = Store(tmp_path, Limits(20 * MIB))
        for number in range(seq, seq + 300):
            store.keep(at(snapshot(number), NOON_MS + number))
        store.close()
    store = Store(tmp_path, Limits(3 * MIB))
    seq = 600
    while not store.is_reconciled:
        store.tidy()
        for number in range(seq, seq + 5):
            assert store.keep(at(snapshot(number), NOON_MS + number)) is None
        seq += 5
    store.close()
    left = [picture.seq for picture in pictures(tmp_path)]
    assert [picture.path for picture in pictures(tmp_path)] == frames(tmp_path)
    assert left[-5:] == list(range(seq - 5, seq))
    assert len(left) < 600


def test_an_index_that_is_not_complete_is_completed_before_anything_is_written(archive: Path) -> None:
    before = pictures(archive)
    (archive / INDEX_NAME).unlink()
    Index(archive / INDEX_NAME, MIB).close()  # killed just then
    store = Store(archive, Limits(20 * MIB))
    store.keep(snapshot(COUNT))
    store.close()
    assert pictures(archive)[:-1] == before
    with closing(sqlite3.connect(archive / INDEX_NAME)) as database:
        ids = [path for (path,) in database.execute("SELECT path FROM picture ORDER BY id")]
    assert ids == frames(archive), "the oldest are still the first to go"


@pytest.mark.slow
def test_an_index_shrinks_with_the_archive(tmp_path: Path) -> None:
    with closing(Index(tmp_path / INDEX_NAME, 100 * MIB)) as index:
        many = [
            ArchivedImage(f"2026-09-21/{n:06}-000_{n}.png", f"{n:032}", None, n, n, Evaluation.OK, 0, "", 1.0, 1.0, 64)
            for n in range(8000)
        ]
        for picture in many:
            index.add(picture)
        full = index.own_bytes
        index.forget([picture.path for picture in many])
        assert index.free_bytes > full / 2
        index.shrink()
        assert index.free_bytes == 0
        assert index.own_bytes < full / 2
        assert index.used_bytes.total() == 0


def test_what_is_asked_for_every_image_does_not_look_at_all_rows(archive: Path) -> None:
    statements = [
        "SELECT path, bytes FROM picture WHERE evaluation = 1 ORDER BY id LIMIT 16",
        "SELECT path FROM picture WHERE created_at_ms BETWEEN 1 AND 2 ORDER BY created_at_ms LIMIT 16",
        "SELECT id FROM picture WHERE path = 'x'",
        "SELECT path FROM picture WHERE path > '2026-09-21/' AND path < '2026-09-210'",
        "DELETE FROM picture WHERE path = 'x'",
    ]
    with closing(sqlite3.connect(archive / INDEX_NAME)) as database:
        for statement in statements:
            plan = [row[-1] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert all(step.startswith("SEARCH") for step in plan), plan


def test_a_mark_is_next_to_the_image_and_in_the_index(archive: Path) -> None:
    marked = mark(archive, f"{7:032x}", Mark("defect", "Jürgen", 1234))
    path = archive / marked.path.replace(".png", ".mark")
    assert json.loads(path.read_bytes()) == {"label": "defect", "by": "Jürgen", "at": 1234}
    assert path.stat().st_mode & 0o777 == 0o640
    assert pictures(archive)[7] == marked
    assert mark(archive, f"{7:032x}", Mark("good", "M", 1235)).label == "good"
    with open_reader(archive) as found:
        assert [picture.seq for picture in found.each(ArchiveQuery(labelled=True))] == [7]


def test_a_mark_that_only_the_file_has_is_found_at_the_start(archive: Path) -> None:
    path = archive / frames(archive)[2].replace(".png", ".mark")
    path.write_bytes(Mark("good", "somebody", 9).content())
    reconcile(archive)
    assert pictures(archive)[2][-3:] == ("good", "somebody", 9)
    path.write_bytes(b"damaged")
    reconcile(archive)
    assert pictures(archive)[2][-3:] == (None, None, None)
    path.unlink()
    mark(archive, f"{2:032x}", Mark("good", "x", 1))
    path.unlink()
    reconcile(archive)
    assert pictures(archive)[2].label is None


def test_a_mark_goes_with_its_image(archive: Path) -> None:
    mark(archive, f"{0:032x}", Mark("good", "M", 1))
    store = Store(archive, Limits(20 * MIB))
    store.tidy()
    assert store._index is not None
    store._remove(store._index, [frames(archive)[0]])
    store.close()
    assert list(archive.glob("*/*.mark")) == []


def test_results_may_be_named_by_their_beginning_if_there_is_only_one(archive: Path) -> None:
    with open_reader(archive) as found:
        assert found.named(f"{5:032x}").seq == 5
        with pytest.raises(ArchiveError, match="several results begin with 0000"):
            found.named("0000")
        with pytest.raises(ArchiveError, match="no image of a result abc"):
            found.named("abc")


def test_images_can_be_marked_and_read_while_the_agent_writes(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    seq, stop = 10, threading.Event()
    with Archive(tmp_path, 20) as archive:

        def feed() -> None:
            nonlocal seq
            while not stop.is_set():
                if archive.waiting < 8:
                    archive.submit(snapshot(seq))
                    seq += 1

        feeder = threading.Thread(target=feed)
        feeder.start()
        for number in range(10):
            mark(tmp_path, f"{number:032x}", Mark("good", "M", number))
            assert len(pictures(tmp_path)) >= 10
        until(lambda: archive.written > 20)
        stop.set()
        feeder.join()
        until(lambda: archive.waiting == 0)
        assert archive.dropped == {}
    assert [picture.label for picture in pictures(tmp_path)[:10]] == ["good"] * 10
    assert len(pictures(tmp_path)) == seq


def test_who_may_not_write_into_the_folder_may_still_read(archive: Path) -> None:
    before = files(archive) | {INDEX_NAME}
    with open_reader(archive) as found:
        assert found.count(ArchiveQuery()) == COUNT
    after = files(archive) | {path.name for path in archive.glob("index*")}
    assert after == before, "reading makes no file"
