"""The steps from a camera to a configuration: each leaves what it says, and a refused one leaves all as it was."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Snapshot
from agent.archive.store import Store
from agent.camera import Frame
from agent.clock import now_ms
from agent.config.model import load
from agent.errors import SetupError
from agent.messages.records import Evaluation, Result
from agent.setup import empty_place, station_files
from agent.setup import steps as steps_module
from agent.setup.steps import Steps
from calibration.bundle.bundle import open_bundle
from calibration.errors import ShiftwatchError
from calibration.imaging.image_files import read_image
from tests.support.set_up import ROI, belt, configure, everything_in, fill_tray, order_for, put_taught
from tests.support.stations import broken_parts, closed_port, good_parts, part, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "correct horse"  # noqa: S105 - of this test alone
EVERY_FRAME_IS_A_PART = {"trigger": {"source": "every_frame"}}


class World:
    """Steps in a folder, and how often the station was to start."""

    def __init__(self, home: Path, first: dict[str, Any]) -> None:
        self.home = home
        self.starts = 0
        self.steps = Steps(order_for(home, first), self._start)

    def __call__(self, step: str, **values: object) -> dict[str, Any]:
        """Take a step; returns the state after it."""
        self.steps.do(step, values)
        return self.state

    @property
    def state(self) -> dict[str, Any]:
        state = self.steps.state()
        json.dumps(state, allow_nan=False)
        return state

    def refusal(self, step: str, **values: object) -> str:
        """Why a step is refused; nothing has changed."""
        before, draft = everything_in(self.home), self.steps.drafts.draft
        with pytest.raises(ShiftwatchError) as refused:
            self.steps.do(step, values)
        assert "\n" not in refused.value.one_line
        assert (everything_in(self.home), self.steps.drafts.draft) == (before, draft)
        return refused.value.one_line

    def test(self) -> dict[str, Any]:
        """Begin a trial, and wait for its first part."""
        self("test", on=True)
        until(lambda: self.state["camera"]["trialProblem"] or self.state["trial"]["parts"])
        assert self.state["camera"]["trialProblem"] == ""
        return dict(self.state["trial"])

    def _start(self) -> None:
        self.starts += 1


@pytest.fixture
def new(tmp_path: Path) -> Iterator[World]:
    """Nothing is there yet but a camera."""
    world = World(tmp_path, belt(tmp_path))
    with world.steps:
        until(lambda: world.state["camera"]["isLive"])
        yield world


@pytest.fixture
def taught(tmp_path: Path, bundle: Path) -> Iterator[World]:
    """A station that was taught, before a belt with good parts and broken ones in turns."""
    configure(tmp_path)
    images = [image for pair in zip(good_parts(3), broken_parts(3), strict=True) for image in pair]
    first = {**belt(tmp_path, images), **put_taught(tmp_path, {"": bundle}), **EVERY_FRAME_IS_A_PART}
    world = World(tmp_path, first)
    with world.steps:
        until(lambda: world.state["camera"]["isLive"])
        yield world


def test_the_first_state_says_what_is_missing(tmp_path: Path) -> None:
    world = World(tmp_path, {})
    with world.steps:
        state = world.state
        assert (state["camera"]["source"], state["camera"]["isLive"]) == (None, False)
        assert (state["tray"], state["teaching"]["zones"], state["trial"], state["broker"]) == ([], [], None, {})
        assert world.refusal("test", on=True).startswith("no camera is chosen yet")
        assert world.refusal("go").startswith("no camera is chosen yet")
        assert world.refusal("empty_place").startswith("the camera gives no picture")
        assert world.refusal("teach").startswith("0 images are too few to teach")
        assert world.refusal("wrong", id="x").startswith("the trial is over")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "setup").write_text("a file")
    with pytest.raises(SetupError, match=f"cannot make the folder {tmp_path / 'setup'}: File exists"):
        World(tmp_path, {})


def test_another_camera_is_shown_at_once(new: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert cv2.imwrite(str(other / "0.png"), np.full((40, 50, 3), 128, np.uint8))
    new("camera", source=f" {other} ")
    until(lambda: new.state["camera"]["size"] == [50, 40])
    assert new.state["camera"]["source"] == str(other)
    assert new.refusal("camera", source="").startswith("this cannot be used: camera.source: '' is not allowed")
    assert "width and height belong together" in new.refusal("camera", source="0", width=640)
    assert "this page may not choose" in new.refusal("camera", source="gentl:/tmp/any.cti#1")
    assert "playback: unknown key" in new.refusal("camera", source="0", playback="fast")


def test_parts_are_collected_and_taught_when_collecting_ends(new: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.setup.bench._COLLECTED_EVERY_S", 0.001)
    monkeypatch.setattr(steps_module, "LEAST_IMAGES", 3)
    started: list[int] = []
    monkeypatch.setattr(new.steps.teaching, "start", lambda: started.append(new.steps.teaching.images))
    new.steps.teaching.images_tried = 1000  # not while they are collected
    new("part", source="every_frame")
    assert new("collect", on=True)["camera"]["isCollecting"]
    until(lambda: len(new.state["tray"]) >= 4)
    assert started == []
    assert not new("collect", on=False)["camera"]["isCollecting"]
    assert started == [len(new.state["tray"])]


def test_an_image_is_thrown_out_and_taken_back(new: World) -> None:
    new.steps.tray.add(Frame(0, part(1), 1_700_000_000_000, 0))
    (name,) = (each["name"] for each in new.state["tray"])
    assert new("throw_out", name=name, out=True)["tray"][0]["isOut"]
    assert not new("throw_out", name=name, out=False)["tray"][0]["isOut"]
    assert new.refusal("throw_out", name="../station.yaml", out=True).startswith("there is no image '../station.yaml'")


def test_images_of_the_empty_place_are_thrown_out_once_it_is_known(tmp_path: Path) -> None:
    bare = np.full_like(part(1), 60)
    names = fill_tray(tmp_path, [part(1), bare, part(2), bare + 1])
    world = World(tmp_path, belt(tmp_path, [bare]))
    with world.steps:
        state = world("empty_place", name=names[1])
        assert [each["name"] for each in state["tray"] if each["isOut"]] == [names[1], names[3]]
        assert state["camera"]["hasEmptyPlace"]
        assert np.array_equal(read_image(tmp_path / "empty.png"), bare)
        world("throw_out", name=names[3], out=False)
        assert not world("empty_place", forget=True)["camera"]["hasEmptyPlace"]
        until(lambda: world.state["camera"]["isLive"])
        assert world("empty_place")["camera"]["hasEmptyPlace"]
        assert world.refusal("empty_place", name="../belt/0000.png").startswith("there is no image")


def test_a_disk_that_takes_no_image_of_the_empty_place_is_an_error_in_words(
    new: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(empty_place, "replace_file", full)
    assert "empty.png: No space left on device" in new.refusal("empty_place")


def test_a_rate_is_kept_only_if_teaching_begins(new: World) -> None:
    assert new.refusal("teach", falseRejectRate=0.05).startswith("0 images are too few to teach")
    assert "falseRejectRate" in new.refusal("teach", falseRejectRate=0.6)
    assert "falseRejectRate" in new.refusal("teach", falseRejectRate="0.05")
    new("teach", cancel=True)


def test_the_trial_tells_good_parts_from_broken_ones(taught: World) -> None:
    taught.test()
    until(lambda: min(taught.state["trial"]["counts"][word] for word in ("ok", "defect")) >= 2)
    assert taught.state["trial"]["counts"]["not decidable"] == 0
    assert taught.state["hasTested"]
    assert taught("test", on=False)["trial"] is None
    assert not (taught.home / "bundle").exists()


def test_a_wrong_verdict_puts_a_good_part_into_the_tray_once_and_keeps_a_defect_that_was_missed(taught: World) -> None:
    taught.test()
    until(lambda: min(taught.state["trial"]["counts"][word] for word in ("ok", "defect")) >= 1)
    parts = {each["verdict"]: each["id"] for each in taught.state["trial"]["parts"]}
    for _ in range(2):
        taught("wrong", id=parts["defect"])
        taught("wrong", id=parts["ok"])
    assert len(taught.state["tray"]) == len(list((taught.home / "setup" / "missed").iterdir())) == 1
    seen = {each["id"]: each["isWrong"] for each in taught.state["trial"]["parts"]}
    assert seen[parts["defect"]]
    assert seen[parts["ok"]]
    assert taught.refusal("wrong", id="nothing").startswith("this part is not kept any more")


def test_another_region_than_the_one_that_was_taught_is_neither_tested_nor_used(taught: World) -> None:
    taught.test()
    taught("zones", zones=[{"name": None, "region": [0, 0, 60, 60], "ignored": []}])
    assert taught.state["trial"] is None
    assert taught.refusal("test", on=True) == "the region has changed since it was taught; teach again"
    assert taught.refusal("go") == "the region has changed since it was taught; teach again"
    taught("zones", zones=[{"name": None, "region": ROI, "ignored": []}])
    taught.test()


def test_a_part_may_be_asked_for_while_the_trial_begins(taught: World) -> None:
    taught("part", source="command", delay_ms=0)
    taught("test", on=True)
    taught("take")
    until(lambda: taught.state["trial"]["parts"])
    assert sum(taught.state["trial"]["counts"].values()) == 1


BROKER = {"host": "127.0.0.1", "username": "press", "password": PASSWORD}


def test_a_broker_that_does_not_answer_is_kept_with_its_answer(taught: World) -> None:
    port = closed_port()
    state = taught("broker", mqtt={**BROKER, "port": port}, station={"line": "7", "name": "press 2"})
    assert not state["broker"]["isGood"]
    assert f"no MQTT broker at 127.0.0.1:{port}" in state["broker"]["text"]
    assert state["topics"] == "enterprise/site/area/7/cell/vision/press 2"
    assert state["draft"]["mqtt"] == {"host": "127.0.0.1", "port": port, "username": "press"}
    assert (taught.home / "mqtt-password").read_text() == f"{PASSWORD}\n"
    assert (taught.home / "mqtt-password").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in json.dumps(state)
    assert PASSWORD not in (taught.home / "setup" / "draft.yaml").read_text()
    # Without a new one it stays.
    taught("broker", mqtt={**BROKER, "password": "", "port": port}, station={})
    draft = taught.steps.drafts.draft
    assert draft.mqtt.password_file == taught.home / "mqtt-password"
    assert draft.station.line == "7"


def test_other_steps_do_not_wait_for_a_broker_that_does_not_answer(
    taught: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(*_: object) -> str:
        is_asked.set()
        assert may_answer.wait(10)
        return "it works"

    monkeypatch.setattr(steps_module, "try_access", slow)
    thread = threading.Thread(target=taught.steps.do, args=("broker", {"mqtt": {"host": "10.0.0.5"}}))
    thread.start()
    assert is_asked.wait(10)
    assert taught("zones", zones=[{"region": ROI}])["broker"] == {}
    may_answer.set()
    thread.join()
    assert taught.state["broker"] == {"isGood": True, "text": "it works"}


def test_tls_with_a_certificate_is_taken(taught: World) -> None:
    tls = {"enabled": True, "ca_file": "/nowhere/ca.pem"}
    state = taught("broker", mqtt={"host": "127.0.0.1", "port": closed_port(), "tls": tls}, station={})
    assert not state["broker"]["isGood"]
    assert taught.steps.drafts.draft.mqtt.tls.enabled
    assert str(taught.steps.drafts.draft.mqtt.tls.ca_file) == "/nowhere/ca.pem"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mqtt": 3}, "mqtt: 3 is not allowed"),
        ({"mqtt": {"host": 3}}, "mqtt.host: 3 is not allowed"),
        ({"mqtt": {**BROKER, "port": 70_000}}, "mqtt.port: 70000 is not allowed"),
        ({"mqtt": {**BROKER, "port": "1883"}}, "mqtt.port: '1883' is not allowed; use a whole number"),
        ({"mqtt": {**BROKER, "password": "two\nlines"}}, "mqtt.password: "),
        ({"mqtt": {**BROKER, "password": {"a": 1}}}, "mqtt.password: "),
        ({"mqtt": {**BROKER, "password_file": "/etc/shadow"}}, "mqtt.password_file: unknown key"),
        ({"mqtt": {"tls": {"enabled": True, "key_file": "/etc/key"}}}, "mqtt.tls.key_file: unknown key"),
        ({"mqtt": BROKER, "station": []}, "station: [] is not allowed"),
        ({"mqtt": BROKER, "station": {"line": ""}}, "station.line: '' is not allowed"),
        ({"mqtt": BROKER, "station": {"line": "a/b"}}, "station.line: 'a/b' is not allowed"),
        ({"mqtt": BROKER, "station": {"lane": "7"}}, "station.lane: unknown key"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_broker_that_cannot_be_one_is_refused_before_its_password_is_written(
    new: World, values: dict[str, Any], says: str
) -> None:
    reason = new.refusal("broker", **values)
    assert says in reason
    assert PASSWORD not in reason
    assert not (new.home / "mqtt-password").exists()


def test_the_image_of_an_empty_place_cannot_be_a_path_of_the_page(new: World) -> None:
    assert "empty: unknown key" in new.refusal("part", source="motion", empty="/etc/passwd")


def test_go_leaves_a_configuration_that_runs_and_the_bundle_in_its_place(taught: World) -> None:
    before = (taught.home / "station.yaml").read_bytes()
    taught("broker", mqtt={**BROKER, "port": closed_port()}, station={"name": "press 2"})
    taught.test()
    state = taught("go")
    assert (taught.starts, state["trial"]) == (1, None)
    text = (taught.home / "station.yaml").read_text()
    assert str(taught.home) not in text
    assert PASSWORD not in text
    config = load(taught.home / "station.yaml")
    assert config.bundle == {"": taught.home / "bundle"}
    assert config.camera.source == str(taught.home / "belt")
    assert (config.engine.backend, config.station.name) == ("onnxruntime", "press 2")
    assert (config.web.enabled, config.web.port, config.web.token_file) == (True, 8480, taught.home / "web-token")
    assert config.mqtt.password_file == taught.home / "mqtt-password"
    assert open_bundle(taught.home / "bundle").working_point
    assert (taught.home / "station-before.yaml").read_bytes() == before


def test_after_go_no_step_is_taken(taught: World) -> None:
    taught("go")
    refused = "the set-up is over: the station starts; look at its own page"
    assert taught.refusal("go") == refused
    assert taught.refusal("zones", zones=[{}]) == refused
    assert taught.starts == 1
    assert sorted(path.name for path in taught.home.glob("station*")) == ["station-before.yaml", "station.yaml"]


def test_a_configuration_that_cannot_be_written_starts_nothing(taught: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agent.setup.station_files.replace_file", full)
        before = (taught.home / "station.yaml").read_bytes()
        with pytest.raises(SetupError, match=r"station\.yaml: No space left on device"):
            taught.steps.do("go", {})
    assert (taught.home / "station.yaml").read_bytes() == before
    assert not (taught.home / "bundle").exists()
    assert taught.starts == 0
    taught("go")
    assert taught.starts == 1


def test_the_bundle_appears_only_when_the_configuration_names_it(
    taught: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    write = station_files.write_station

    def watched(file: Path, values: dict[str, Any]) -> Path | None:
        seen.append((taught.home / "bundle").exists())
        return write(file, values)

    monkeypatch.setattr(steps_module, "write_station", watched)
    taught("go")
    assert seen == [False]


def test_of_two_who_go_at_once_one_does(taught: World) -> None:
    barrier, refusals = threading.Barrier(2), []

    def go() -> None:
        barrier.wait()
        try:
            taught.steps.do("go", {})
        except SetupError as error:
            refusals.append(error.what)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (refusals, taught.starts) == (["the set-up is over: the station starts"], 1)


def test_zones_of_several_bundles_go_into_one_configuration(tmp_path: Path, bundle: Path) -> None:
    configure(tmp_path, decision={"threshold": 5.0, "raise_after": 2})
    world = World(tmp_path, {**belt(tmp_path), **put_taught(tmp_path, {"left": bundle, "right": bundle})})
    with world.steps:
        until(lambda: world.state["camera"]["isLive"])
        assert len(world.state["teaching"]["zones"]) == 2
        world("go")
    config = load(tmp_path / "station.yaml")
    assert config.bundle == {"left": tmp_path / "left", "right": tmp_path / "right"}
    assert (config.decision.threshold, config.decision.raise_after) == (None, 2)


def test_good_parts_that_a_station_has_kept_come_into_the_tray_once(new: World) -> None:
    assert not new.state["hasArchive"]
    assert "archive" in new.refusal("from_archive")
    kept = {Evaluation.OK: good_parts(3), Evaluation.NOT_OK: broken_parts(2)}
    with closing(Store(new.home / "state" / "archive", Limits(100 * MIB))) as store:
        for evaluation, images in kept.items():
            for seq, image in enumerate(images):
                of = Result(
                    seq=seq, part_id=None, created_at_ms=now_ms(), evaluation=evaluation, score=1.0, threshold=9.0
                )
                assert store.keep(Snapshot(image=image, heat=(), region=None, result=of)) is None
    state = new("from_archive")
    assert state["hasArchive"]
    assert len(state["tray"]) == 3
    shown = [new.steps.tray.image(each["name"]) for each in state["tray"]]
    assert all(any(np.array_equal(one, image) for image in kept[Evaluation.OK]) for one in shown)
    assert "already" in new.refusal("from_archive")
