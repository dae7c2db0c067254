"""``shiftwatch-agent archive`` as people use it: what it prints, what it copies, and how it ends."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
import pytest

from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Heat, Snapshot
from agent.archive.store import Store
from agent.audit.verify import verify
from agent.cli import main
from agent.config.time_argument import time_ms
from agent.messages.records import DefectRegion, Evaluation, Result
from calibration.errors import SettingError
from calibration.imaging.image_files import read_image
from calibration.workstation.dataset import good_images
from calibration.workstation.labelled_images import labelled_images
from tests.support.stations import Agent, broken_parts, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.imaging.preprocess import Image
    from tests.support.real_broker import Mosquitto

COUNT = 60
HOUR_MS = 3_600_000
CLASSES = [Evaluation.OK, Evaluation.OK, Evaluation.NOT_OK, Evaluation.OK, Evaluation.NOT_DECIDABLE]
Command: TypeAlias = "Callable[..., tuple[int, str, str]]"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], station: Path) -> Command:
    """Runs ``shiftwatch-agent archive``; gives exit code, output and errors."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["shiftwatch-agent", "archive", *map(str, arguments), "--config", str(station)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    return run


def frame_of(seq: int) -> Image:
    return np.random.default_rng(seq).integers(0, 255, (24, 32, 3), np.uint8)


def result_id(seq: int) -> str:
    return f"{seq * 2_654_435_761 % 2**32:08x}{seq:024x}"


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """With a picture for each of the last ``COUNT`` hours."""
    folder = tmp_path / "state" / "archive"
    folder.parent.mkdir()
    store = Store(folder, Limits(20 * MIB))
    now_ms = time.time_ns() // 1_000_000
    for seq in range(COUNT):
        evaluation = CLASSES[seq % 5]
        snapshot = Snapshot(
            image=frame_of(seq),
            heat=(Heat(None, np.full((4, 4), 10, np.float32), 100.0),) if evaluation is Evaluation.NOT_OK else (),
            region=None,
            result=Result(
                threshold=100.0,
                score=float("nan") if evaluation is Evaluation.NOT_DECIDABLE else 100.0 + seq,
                result_id=result_id(seq),
                part_id="SN [red]\x1b[2J" if seq == COUNT - 1 else f"SN-{seq}",
                seq=seq,
                created_at_ms=now_ms - (COUNT - seq) * HOUR_MS + HOUR_MS // 2,
                evaluation=evaluation,
                regions=(DefectRegion(1, 2, 3, 4, 5.0),) if evaluation is Evaluation.NOT_OK else (),
            ),
        )
        assert store.keep(snapshot) is None
    store.close()
    return write_config(tmp_path, tmp_path, 0, 1883)


def listed(archive: Command, *arguments: object) -> list[int]:
    code, out, _ = archive("list", "--json", "--limit", 1000, *arguments)
    assert code == 0
    return [json.loads(line)["seq"] for line in out.splitlines()]


def test_the_newest_are_listed_first_with_what_there_is_in_all(archive: Command) -> None:
    code, out, _ = archive("list", "--limit", 3)
    assert code == 0
    head, *rows, last = out.splitlines()
    assert head.split() == ["time", "result", "part", "class", "score/thr."]
    assert len(rows) == 3
    assert rows[1].split()[2:6] == [result_id(58)[:8], "SN-58", "ok", "1.58"]
    assert "none" in rows[0]
    assert "3 of 60 found" in last
    assert "ok 36 (0.3 MiB" in last
    assert "not_ok 12 (" in last


def test_a_list_has_one_line_for_each_image_in_80_columns(archive: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert archive("mark", result_id(3), "defect")[0] == 0
    head, *rows, last = archive("list", "--limit", COUNT - 1, "--until", "1h")[1].splitlines()
    assert "marked" in head
    assert len(rows) == COUNT - 1
    assert max(map(len, rows)) <= 80
    assert f"{COUNT - 1} of {COUNT - 1} found" in last


def test_a_part_name_does_not_steer_the_terminal(archive: Command) -> None:
    out = archive("list")[1]
    assert "\x1b" not in out
    assert "SN [red]\\u001b[2J" in out


def test_images_are_found_by_class_time_part_and_score(archive: Command) -> None:
    newest_first = list(range(COUNT))[::-1]
    assert listed(archive) == newest_first
    assert listed(archive, "--class", "not_ok") == [seq for seq in newest_first if seq % 5 == 2]
    assert listed(archive, "--since", "4h") == newest_first[:4]
    assert listed(archive, "--until", "2d") == newest_first[48:]
    assert listed(archive, "--since", "10h", "--until", "5h") == newest_first[5:10]
    assert listed(archive, "--part", "SN-17") == [17]
    assert listed(archive, "--min-score", 155) == [58, 57, 56, 55]
    assert listed(archive, "--class", "not_decidable", "--min-score", 0) == []


def test_one_image_is_shown_with_all_its_numbers(archive: Command, tmp_path: Path) -> None:
    code, out, _ = archive("show", result_id(57)[:8])
    assert code == 0
    fields = dict(line.strip().split(maxsplit=1) for line in out.splitlines())
    assert (fields["resultId"], fields["class"], fields["score"]) == (result_id(57), "not_ok", "157.0")
    assert json.loads(archive("show", result_id(57), "--json")[1])["regions"] == [
        {"x": 1, "y": 2, "width": 3, "height": 4, "score": 5.0, "zone": None}
    ]
    shown = json.loads(archive("show", result_id(57), "--json")[1])
    assert cv2.imread(shown["overlayPath"]) is not None
    assert shown["framePath"].startswith(str(tmp_path / "state" / "archive"))
    assert "overlayPath" not in json.loads(archive("show", result_id(58), "--json")[1])


def test_an_unknown_result_and_a_missing_archive_are_reported(archive: Command, tmp_path: Path) -> None:
    code, _, err = archive("show", "ffff")
    assert code == 2
    assert "the archive has no image of a result ffff" in err
    shutil.rmtree(tmp_path / "state" / "archive")
    for command in (["list"], ["show", "ffff"], ["mark", "ffff", "good"], ["export", tmp_path / "out"]):
        code, _, err = archive(*command)
        assert code == 2
        assert "there is no archive in" in err


def test_a_mark_is_listed_and_shown(archive: Command) -> None:
    code, out, _ = archive("mark", result_id(57)[:8], "good", "--by", "Jürgen [red]")
    assert code == 0
    assert f"{result_id(57)}, not_ok: good, says Jürgen [red]" in out
    head, *rows, _ = archive("list", "--limit", 3)[1].splitlines()
    assert head.split()[4] == "marked"
    assert rows[2].split()[5] == "good"
    shown = json.loads(archive("show", result_id(57), "--json")[1])
    assert (shown["label"], shown["markedBy"]) == ("good", "Jürgen [red]")
    assert abs(shown["markedAt"] - time.time() * 1000) < HOUR_MS


def test_a_mark_is_in_the_audit_log_which_stays_intact(archive: Command, tmp_path: Path) -> None:
    for seq in (57, 58):
        assert archive("mark", result_id(seq), "defect", "--by", "Jürgen")[0] == 0
    log = tmp_path / "state" / "audit.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["event"], each["command"], each["via"]) for each in entries] == 2 * [("command", "mark", "local")]
    marks = [{"resultId": result_id(seq), "label": "defect", "by": "Jürgen"} for seq in (57, 58)]
    assert [each["args"] for each in entries] == marks
    assert verify(log, None).is_sound


def exported(target: Path) -> dict[str, list[int]]:
    return {
        str(folder.relative_to(target)): sorted(int(path.stem.split("_")[2]) for path in folder.glob("*.png"))
        for folder in sorted(target.glob("*/*"))
    }


def test_an_export_is_what_calibration_reads(archive: Command, tmp_path: Path) -> None:
    target = tmp_path / "out"
    code, out, err = archive("export", target)
    assert code == 0
    found = exported(target)
    assert sorted(found) == ["test/defect", "test/good", "train/good"]
    assert found["test/defect"] == [seq for seq in range(COUNT) if seq % 5 == 2]
    assert sorted(found["train/good"] + found["test/good"]) == [seq for seq in range(COUNT) if seq % 5 in {0, 1, 3}]
    assert 2 <= len(found["test/good"]) <= 14
    assert f"{len(found['train/good'])} into train/good" in out
    assert "12 are NotDecidable" in out
    assert "60/60" in err
    assert len(good_images(target)) == len(found["train/good"])
    assert {each.label for each in labelled_images(target)} == {"good", "defect"}
    for path in target.glob("*/*/*.png"):
        assert np.array_equal(read_image(path), frame_of(int(path.stem.split("_")[2]))), "as it was taken"


def test_an_export_overwrites_nothing_and_continues(archive: Command, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert archive("export", target, "--since", "30h")[0] == 0
    mine = min(target.glob("test/defect/*"))
    mine.write_bytes(b"mine")
    before = exported(target)
    code, out, _ = archive("export", target)
    assert code == 0
    assert f"{sum(map(len, before.values()))} were there already" in out
    assert mine.read_bytes() == b"mine"
    assert sum(map(len, exported(target).values())) == 48
    assert list(target.rglob("*.part")) == []


def test_what_people_said_counts_more_than_the_verdict(archive: Command, tmp_path: Path) -> None:
    for seq, label in ((57, "good"), (58, "defect"), (59, "good")):  # was NotOK, OK, NotDecidable
        assert archive("mark", result_id(seq), label)[0] == 0
    assert archive("export", tmp_path / "all", "--since", "5h")[0] == 0
    found = exported(tmp_path / "all")
    assert {57, 59} <= set(found["train/good"])
    assert found["test/defect"] == [58]
    assert archive("export", tmp_path / "marked", "--labelled")[0] == 0
    assert exported(tmp_path / "marked") == {"test/defect": [58], "train/good": [57, 59]}


def test_a_copy_that_a_mark_has_put_in_the_wrong_place_is_reported(archive: Command, tmp_path: Path) -> None:
    target = tmp_path / "out"
    archive("export", target)
    archive("mark", result_id(57), "good")
    before = exported(target)
    code, _, err = archive("export", target)
    assert code == 0
    assert exported(target) == before
    assert "now in the wrong folder" in err
    assert str(next(target.glob("test/defect/*_57_*"))) in err.replace("\n", "")


def test_a_target_that_cannot_be_written_is_reported(archive: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = archive("export", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot write into" in err


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("90s", -90_000),
        ("30m", -1_800_000),
        (" 2h ", -7_200_000),
        ("3d", -259_200_000),
        ("1w", -604_800_000),
        ("1970-01-03", 86_400_000),
        ("1970-01-03 12:00", 129_600_000),
        ("1970-01-03T12:00:00+02:00", 122_400_000),
    ],
)
def test_points_in_time(text: str, expected_ms: int, use_zone: Callable[[str], None]) -> None:
    use_zone("UTC")
    assert time_ms(text, 86_400_000) - 86_400_000 == expected_ms


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "-2h", "2026-13-01", "9" * 30 + "w"])
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="is not a time"):
        time_ms(text, 0)


@pytest.mark.slow
def test_an_agent_keeps_images_of_each_class_and_they_can_be_asked_for_while_it_runs(
    mosquitto: Mosquitto,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    mosquitto.start()
    folder = tmp_path / "running"
    folder.mkdir()
    odd = [np.asarray(cv2.resize(part, (40, 30)), np.uint8) for part in good_parts(2)]  # does not fit the bundle
    source = write_pictures(folder / "parts", [*good_parts(3), *broken_parts(3), *odd])
    camera = {"frames_per_s": 40, "playback": "realtime", "loop": True}
    config = write_config(folder, bundle, source, mosquitto.port, camera=camera, archive={"ok_every": 3})

    def ask(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "archive", *map(str, arguments), "--config", str(config)])
        with pytest.raises(SystemExit):
            main()
        return capfd.readouterr().out

    def kept(name: str) -> int:
        return len(ask("list", "--json", "--class", name).splitlines())

    with Agent(config) as agent:
        until(lambda: "resultId" in ask("list", "--json"), 30)
        until(lambda: kept("ok") >= 3 and kept("not_ok") >= 3)
        assert kept("not_decidable") == 1
        newest = json.loads(ask("list", "--json", "--class", "not_ok").splitlines()[0])["resultId"]
        assert "good, says M. Bauer" in ask("mark", newest, "good", "--by", "M. Bauer")
        assert json.loads(ask("show", newest, "--json"))["markedBy"] == "M. Bauer"
        assert verify(folder / "state" / "audit.jsonl", None).is_sound
        assert "into train/good" in ask("export", tmp_path / "out")
        assert agent.process.poll() is None, agent.log
