"""A station recalibrates while it inspects; nothing that goes wrong on the way affects the inspection."""

from __future__ import annotations

import getpass
import itertools
import json
import os
import re
import signal
import socket
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.archive.entry import Mark
from agent.archive.label import mark
from agent.archive.query import ArchiveQuery, open_reader
from agent.clock import now_ms
from agent.commands.control_socket import NAME, ask_station
from agent.messages.records import Evaluation
from agent.recalibration.bundle_folder import BundleFolder
from agent.recalibration.ipc import Message, WorkerOrder, receive, send
from agent.recalibration.worker import RecalibrationWorker
from agent.zones.versions import Versions
from calibration.bundle.bundle import open_bundle
from calibration.errors import ModelTooLargeError
from tests.support.running import Running
from tests.support.stations import (
    PATIENCE_S,
    broken_parts,
    closed_port,
    good_parts,
    kept_records,
    part,
    strided_backbone,
    teach,
    until,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.archive.entry import ArchivedImage
    from calibration.imaging.preprocess import Image
    from tests.support.stations import Outcome

Answer = dict[str, Any]
FAST = {"playback": "realtime", "frames_per_s": 100, "loop": True}
ENOUGH = 30


class Line:
    """A station that plays pictures, and the command given on its device."""

    def __init__(
        self, folder: Path, bundle: Path, images: Sequence[Image], *, ok_every: int = 1000, **settings: object
    ) -> None:
        self.state = folder / "state"
        pictures = write_pictures(folder / "pictures", images)
        self.config = write_config(
            folder,
            bundle,
            pictures,
            closed_port(),
            camera=FAST,
            decision={},
            recalibration={"shadow_parts": 10, "quiet_s": 20, **settings},
            archive={"ok_every": ok_every},
        )
        self._numbers = itertools.count()
        self.station = self.start()

    def start(self) -> Running:
        self.station = Running(self.config)
        until(lambda: (self.state / NAME).exists() or self.station.failure)
        return self.station

    def ask(self, name: str = "recalibrate", **args: object) -> Iterator[Answer]:
        command = {"command": name, "commandId": f"{name}-{next(self._numbers)}", "args": args, "by": "Ana"}
        return ask_station(self.state, command)

    def end_of(self, name: str = "recalibrate", **args: object) -> Answer:
        return list(self.ask(name, **args))[-1]

    def begin(self, **args: object) -> Iterator[Answer]:
        """Begin a recalibration that collects for long; returns once it collects."""
        answers = self.ask("recalibrate", parts=5000, **args)
        while next(answers).get("phase") != "collecting":
            pass
        return answers

    @property
    def identity(self) -> str:
        """Identity of the active bundle, as written to the disk."""
        return Versions(self.state / "versions.json", "").served[-1].identity

    @property
    def events(self) -> list[Answer]:
        return [json.loads(line) for line in (self.state / "audit.jsonl").read_text().splitlines()]

    @property
    def made_here(self) -> list[str]:
        return sorted(path.name for path in (self.state / "bundles").glob("*"))


@pytest.fixture
def line(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Line]]:
    """Makes a station; PyTorch cannot be imported in its worker."""
    for name in ("torch", "timm"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('not on a device')")
    monkeypatch.syspath_prepend(str(tmp_path / "blocked"))
    made: list[Line] = []

    def make(images: Sequence[Image], known: Path = bundle, **settings: Any) -> Line:  # noqa: ANN401 - as `Line`
        made.append(Line(tmp_path, known, images, **settings))
        return made[-1]

    yield make
    for each in made:
        each.station.end()


def worker_of_this_process() -> int:
    """Process id; 0 if there is none."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text, command = status.read_text(), status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in text and b"recalibration.worker" in command:
            return int(status.parent.name)
    return 0


def brighter(images: Sequence[Image]) -> list[Image]:
    """As another lamp shows them."""
    return [cv2.convertScaleAbs(image, alpha=1.03, beta=2).astype(np.uint8) for image in images]


@pytest.mark.slow
def test_a_station_adapts_to_a_new_lamp_while_it_inspects_and_can_return_to_the_bundle_before(
    line: Callable[..., Line], bundle: Path, command: Callable[..., Outcome]
) -> None:
    changed = line(brighter(good_parts(60)))
    before = changed.identity
    *told, last = changed.ask(parts=ENOUGH, reason="new lamp")
    assert last["accepted"], last
    phases = list(dict.fromkeys(answer["phase"] for answer in told if "phase" in answer))
    assert phases == ["preparing", "collecting", "learning", "judging beside", "taking over"]
    progress = [answer["progress"] for answer in told]
    assert progress == sorted(progress)
    figures = last["figures"]
    assert figures["collected"] == ENOUGH
    assert figures["shadowParts"] == 10
    assert figures["bundle"] == changed.identity != before
    assert changed.made_here[0].endswith(f"-{changed.identity[:8]}")
    assert [event["event"] for event in changed.events] == ["started", "command", "recalibrated"]
    entry = changed.events[-1]
    assert (entry["mode"], entry["parts"], entry["forced"], entry["parent"]) == ("full", ENOUGH, False, before)
    assert entry["hash"] == last["auditHash"]
    summary = changed.station.end()
    assert summary.captured == summary.results + sum(summary.dropped.values())
    listed = command("versions", "--config", changed.config)
    assert before[:12] in listed.out
    assert "new lamp" in listed.out
    made = Versions(changed.state / "versions.json", "").served[-1]
    assert (made.by, made.path) == (getpass.getuser(), str(changed.state / "bundles" / changed.made_here[0]))
    changed.start()  # it is active also after a restart, though another one is configured
    until(lambda: changed.end_of("resume")["accepted"])
    assert changed.end_of("rollback")["accepted"]
    assert changed.identity == before == open_bundle(bundle).identity


@pytest.mark.slow
def test_a_threshold_that_was_commanded_belongs_to_its_bundle_and_comes_back_with_it(line: Callable[..., Line]) -> None:
    station = line(good_parts(40))
    base = Versions(station.state / "versions.json", "").served[-1].threshold
    assert station.end_of("threshold", threshold=2 * base)["accepted"]
    last = station.end_of(parts=ENOUGH, mode="mean")
    assert last["figures"]["thresholdBefore"] == 2 * base
    assert Versions(station.state / "versions.json", "").served[-1].threshold == last["figures"]["threshold"]
    assert station.end_of("threshold", threshold=1.5 * last["figures"]["threshold"])["accepted"]
    assert station.end_of("rollback")["accepted"]
    assert [version.threshold for version in Versions(station.state / "versions.json", "").served] == [
        2 * base,
        1.5 * last["figures"]["threshold"],
        2 * base,
    ]


@pytest.mark.slow
def test_the_bundle_to_return_to_is_kept_even_if_only_one_is(line: Callable[..., Line]) -> None:
    station = line(good_parts(40), keep_bundles=1)
    made = []
    for _ in range(3):
        assert station.end_of(parts=ENOUGH, mode="mean")["accepted"]
        made.append(station.identity)
    until(lambda: len(station.made_here) == 2)  # the oldest is removed after the answer
    assert station.end_of("rollback")["accepted"]
    assert station.identity == made[1]


@pytest.mark.slow
def test_another_product_is_refused_unless_the_mode_is_teach(line: Callable[..., Line]) -> None:
    station = line([cv2.circle(image, (48, 36), 5, (60, 70, 65), -1) for image in good_parts(60)])  # with a hole
    before = station.identity
    refused = station.end_of(parts=ENOUGH)
    assert not refused["accepted"]
    assert "teach" in refused["error"]
    assert (station.identity, station.made_here) == (before, [])
    taught = station.end_of(parts=ENOUGH, mode="teach")
    assert taught["accepted"], taught
    assert station.identity == taught["figures"]["bundle"] != before


@pytest.mark.slow
def test_a_station_whose_bundle_has_weights_is_taught_without_them_and_then_recalibrated_in_full(
    line: Callable[..., Line], command: Callable[..., Outcome], tmp_path: Path
) -> None:
    known = teach(tmp_path / "strided", strided_backbone())
    with_hole = [cv2.circle(image, (48, 36), 5, (60, 70, 65), -1) for image in good_parts(60)]
    # What thirty parts and then others find differs much, by which parts come.
    station = line(with_hole, known, min_detection=0.0, least_detection=0.0)
    without = ("--config", station.config, "--parts", ENOUGH, "--backbone", "filterbank")
    refused = command("recalibrate", *without)
    assert refused.code == 2
    assert "the mode full keeps the backbone of the bundle" in refused.out
    assert (station.identity, station.made_here) == (open_bundle(known).identity, [])
    taught = command("recalibrate", *without, "--mode", "teach")
    assert taught.code == 0, taught
    made = open_bundle(station.state / "bundles" / station.made_here[0])
    assert made.identity == station.identity
    assert (made.manifest.backbone.name, made.manifest.backbone.weights_sha256) == ("filterbank", ())
    assert station.events[1]["args"]["backbone"] == station.events[-2]["args"]["backbone"] == "filterbank"
    later = station.end_of(parts=ENOUGH, mode="full")
    assert later["accepted"], later
    assert later["figures"]["bundle"] == station.identity != made.identity


def test_another_backbone_is_refused_where_the_device_has_too_little_memory_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent.recalibration.worker._available_mib", lambda: 1.0)
    known = open_bundle(teach(tmp_path / "strided", strided_backbone()))
    order = WorkerOrder(
        bundle=str(known.path),
        identity=known.identity,
        target=str(tmp_path / "new"),
        parts_folder=str(tmp_path / "parts"),
        mode="teach",
        backbone="filterbank",
        old_weight=2.0,
        false_reject_rate=None,
        sequential=True,
        parts=ENOUGH,
        expected=ENOUGH,
        min_detection=0.9,
        least_detection=0.0,
        threshold=1.0,
        defects=(),
        good=(),
    )
    with pytest.raises(ModelTooLargeError, match="for their statistics; 1 MiB are free"):
        RecalibrationWorker(order, (), lambda *_, **__: None).run()


@pytest.mark.slow
def test_a_bundle_that_finds_too_little_is_activated_only_by_force_which_the_audit_log_records(
    line: Callable[..., Line],
) -> None:
    random = np.random.default_rng(0)
    station = line([random.integers(0, 180, (72, 96, 3), np.uint8) for _ in range(60)])
    refused = station.end_of(parts=ENOUGH, mode="teach")
    assert not refused["accepted"]
    assert "of synthetic defects; the old bundle found" in refused["error"]
    assert (station.events[-1]["event"], station.events[-1]["forced"]) == ("refused", False)
    forced = station.end_of(parts=ENOUGH, mode="teach", force=True)
    assert forced["accepted"]
    assert forced["figures"]["objections"]
    assert (station.events[-1]["event"], station.events[-1]["forced"]) == ("recalibrated", True)


@pytest.mark.slow
def test_a_bundle_below_the_least_detection_is_refused_whatever_the_old_one_finds(line: Callable[..., Line]) -> None:
    """Taught with pure noise; the comparison is switched off."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, 180, (72, 96, 3), np.uint8) for _ in range(60)]
    station = line(noise, min_detection=0.0, least_detection=1.0)
    refused = station.end_of(parts=ENOUGH, mode="teach")
    assert not refused["accepted"]
    figures = refused["figures"]
    assert figures["largestSyntheticFound"] < 1.0
    assert refused["error"].startswith(
        f"it finds {figures['largestSyntheticFound']:.0%} of the largest synthetic defects, of 16 pixels; "
        "recalibration.least_detection asks for 100%"
    )
    assert (station.events[-1]["event"], station.events[-1]["forced"]) == ("refused", False)
    assert station.end_of(parts=ENOUGH, mode="teach", force=True)["accepted"]
    assert (station.events[-1]["event"], station.events[-1]["forced"]) == ("recalibrated", True)


@pytest.mark.slow
def test_frames_of_a_dark_camera_are_not_collected(line: Callable[..., Line]) -> None:
    station = line([image // 12 for image in good_parts(10)], quiet_s=1)
    refused = station.end_of(parts=200)
    assert not refused["accepted"]
    assert "0 of 200 parts in" in refused["error"]
    assert "frames dark" in refused["error"]
    assert refused["figures"]["notCollected"]["frames dark"] > 10
    assert station.events[-1]["event"] == "refused"


@pytest.mark.slow
def test_a_paused_station_collects_nothing(line: Callable[..., Line]) -> None:
    station = line(good_parts(10), quiet_s=1)
    assert station.end_of("pause", reason="lens")["accepted"]
    refused = station.end_of(seconds=60)
    assert "the station is paused (paused by" in refused["error"]
    assert station.end_of("resume")["accepted"]
    assert station.end_of(parts=5, seconds=5)["error"].startswith("parts and seconds are both given")


@pytest.mark.slow
def test_parts_are_collected_for_a_time(line: Callable[..., Line]) -> None:
    station = line(good_parts(40))
    tried = station.end_of(seconds=1, mode="threshold", dryRun=True)
    assert tried["accepted"], tried
    assert tried["figures"]["collected"] >= ENOUGH


@pytest.mark.slow
def test_too_few_parts_and_a_dry_run_change_nothing(line: Callable[..., Line]) -> None:
    station = line(good_parts(40))
    before = (station.state / "versions.json").read_text()
    refused = station.end_of(parts=12)
    assert "12 good images cannot support a false-reject rate" in refused["error"]
    tried = station.end_of(parts=ENOUGH, dryRun=True)
    assert tried["accepted"]
    assert tried["figures"]["shadowParts"] == 10
    assert (station.state / "versions.json").read_text() == before
    assert station.made_here == []
    assert [event["event"] for event in station.events[-2:]] == ["command", "tried"]
    assert not list((station.state / "bundles").iterdir())


@pytest.mark.slow
def test_it_ends_when_it_is_cancelled_or_void_or_loses_its_worker_and_the_inspection_continues(
    line: Callable[..., Line],
) -> None:
    station = line(good_parts(40))
    before = station.identity

    answers = station.begin()
    second = station.end_of()
    assert "a recalibration is under way: collecting" in second["error"]
    assert station.end_of(cancel=True)["accepted"]
    assert "cancelled by" in list(answers)[-1]["error"]
    assert "no recalibration is under way" in station.end_of(cancel=True)["error"]

    answers = station.begin()
    assert station.end_of("threshold", threshold=5000.0)["accepted"]
    assert "another bundle or threshold" in list(answers)[-1]["error"]

    answers = station.begin()
    os.kill(worker_of_this_process(), signal.SIGKILL)
    assert "the recalibration worker was killed by SIGKILL" in list(answers)[-1]["error"]
    assert station.events[-1]["event"] == "failed"

    answers = station.begin()
    os.kill(worker_of_this_process(), signal.SIGSTOP)
    reader = threading.Thread(target=list, args=(answers,), daemon=True)
    reader.start()
    seen = results_of(station)
    until(lambda: results_of(station) > seen + 150)  # the process takes 64 of them and no more
    assert station.end_of(cancel=True)["accepted"]
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert worker_of_this_process() == 0

    station.begin()
    summary = station.station.end()  # the agent's own end is its end, too
    assert worker_of_this_process() == 0
    assert summary.captured == summary.results + sum(summary.dropped.values())
    assert (station.identity, station.made_here) == (before, [])


def results_of(station: Line) -> int:
    outbox = station.state / "outbox.sqlite"
    database = sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM record").fetchone()[0])
    finally:
        database.close()


@pytest.mark.slow
def test_labelled_images_are_added_once_and_tested_on(line: Callable[..., Line]) -> None:
    odd = [cv2.circle(part(3000 + number), (40, 30), 2, (120, 120, 120), -1) for number in range(2)]
    station = line([*good_parts(40), *odd, *broken_parts(2)])
    archive = station.state / "archive"
    until(lambda: len(list(archive.glob("*/*.json"))) > 8)
    with open_reader(archive) as index:
        found = sorted(index.newest(ArchiveQuery(evaluation=Evaluation.NOT_OK), 8), key=lambda each: each.score or 0)
    for picture, label in ((found[0], "good"), (found[1], "good"), (found[-1], "defect")):
        mark(archive, picture.result_id, Mark(label, "Ana", now_ms()))  # type: ignore[arg-type]
    first = station.end_of(parts=ENOUGH, mode="mean", force=True)  # so odd parts make a threshold that finds little
    assert first["accepted"], first
    assert first["figures"]["markedGood"] == 2
    assert first["figures"]["parts"] == ENOUGH + 2
    assert first["figures"]["markedDefects"] == first["figures"]["markedDefectsFound"] == 1
    second = station.end_of(parts=ENOUGH, mode="mean", dryRun=True)
    assert second["figures"]["markedGood"] == 0


@pytest.mark.slow
def test_the_command_shows_the_figures(line: Callable[..., Line], command: Callable[..., Outcome]) -> None:
    station = line(good_parts(40))
    done = command("recalibrate", "--config", station.config, "--parts", ENOUGH, "--mode", "threshold", "--dry-run")
    assert done.code == 0, done
    assert "parts collected" in done.out
    assert "recalibrate: tried, nothing was changed; audit log entry" in done.out
    refused = command("recalibrate", "--config", station.config, "--cancel")
    assert refused.code == 2
    assert "no recalibration is under way" in refused.out


@pytest.mark.slow
def test_a_defect_that_was_missed_is_marked_and_the_proposed_threshold_finds_it(
    line: Callable[..., Line], command: Callable[..., Outcome]
) -> None:
    faint = cv2.line(part(7008), (40, 30), (52, 40), (168, 173, 178), 2)
    station = line([*good_parts(28), faint], ok_every=3)
    config, archive = ("--config", station.config), station.state / "archive"

    def passed() -> list[ArchivedImage]:
        with open_reader(archive) as index:
            return sorted(index.newest(ArchiveQuery(evaluation=Evaluation.OK), 1000), key=lambda each: each.score or 0)

    until(lambda: list(archive.glob("*/*.json")))
    until(lambda: any(each.seq % 29 == 28 for each in passed()))
    missed = passed()[-1]
    assert missed.seq % 29 == 28, "the faint one scores highest"
    assert command("archive", "mark", missed.result_id, "defect", *config).code == 0

    tried = command("recalibrate", *config, "--parts", ENOUGH, "--mode", "threshold", "--dry-run")
    assert f"{missed.result_id[:12]} {missed.score:,.4g} (missed) ->" in tried.out
    assert (
        f"instead of {missed.threshold:,.4g} would find 1 of the 1 marked defects and reject about 1 good part in"
        in tried.out
    ), "the bundle that stays"
    done = command("recalibrate", *config, "--parts", ENOUGH, "--mode", "threshold", "--reason", "a miss")
    (proposal,) = re.findall(r"proposal: threshold ([0-9,]+) .* to apply it: (.*) --config", done.out)
    assert proposal[1] == f"shiftwatch-agent command threshold {proposal[0].replace(',', '')}"
    made = Versions(station.state / "versions.json", "").served[-1]
    assert f"instead of {made.threshold:,.4g} would find" in done.out, "the new bundle"
    assert command(*proposal[1].split()[1:], *config).code == 0
    threshold = float(proposal[0].replace(",", ""))
    assert station.events[-1]["args"]["threshold"] == threshold
    before = results_of(station)
    until(lambda: results_of(station) > before + 2 * 29)
    station.station.end()
    results = [json.loads(each.payload) for each in kept_records(station.state.parent) if each.kind == "result"]
    verdicts: dict[float, set[int]] = {each["threshold"]: set() for each in results}
    for each in results:
        if each["score"] == missed.score:
            verdicts[each["threshold"]].add(each["resultEvaluation"])
    assert verdicts[missed.threshold] == {Evaluation.OK}
    assert verdicts[threshold] == {Evaluation.NOT_OK}


def test_old_bundles_go_and_those_in_use_stay(tmp_path: Path) -> None:
    names = [f"2026010{day}T000000Z-0123456{day}" for day in range(1, 7)]
    for name in [*names, "by-hand", ".half"]:
        (tmp_path / name).mkdir()
    for backend in ("tensorrt", "tensorrt_rtx"):
        (tmp_path / f"{names[1]}.{backend}").mkdir()
    made = BundleFolder(tmp_path)
    made.remove_left_overs()
    made.prune(3, [tmp_path / names[0]])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[0], *names[3:], "by-hand"])


def test_a_list_of_bundles_from_an_older_version_has_neither_author_nor_reason(tmp_path: Path) -> None:
    known = {"identity": "a" * 64, "path": "/b", "threshold": 1.0, "since_ms": 5}
    (tmp_path / "versions.json").write_text(json.dumps({"configured": "a" * 64, "served": [known]}))
    (version,) = Versions(tmp_path / "versions.json", "a" * 64).served
    assert (version.identity, version.by, version.why, version.learnt_ms) == ("a" * 64, None, None, None)


def test_a_part_arrives_whole_and_one_that_is_cut_off_does_not() -> None:
    image = np.arange(200 * 300 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 300, 3)
    part = Message({"kind": "part", "shape": image.shape}, image.tobytes())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sender = threading.Thread(target=send, args=(part, ours))
        sender.start()
        message = receive(theirs)
        sender.join()
        assert message is not None
        assert np.array_equal(message.image, image)
        ours.sendall(json.dumps([{"kind": "part"}, 5]).encode())
        ours.sendall(b"1234")
        ours.close()
        assert receive(theirs) is None
        assert receive(theirs) is None
