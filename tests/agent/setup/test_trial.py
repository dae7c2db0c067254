"""The trial gives the verdicts that the station will give, and sends nothing."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.camera import Frame
from agent.errors import SetupError
from agent.setup import trial as trial_module
from agent.setup.station_files import checked
from agent.setup.trial import Trial
from calibration.errors import ShiftwatchError
from tests.support.set_up import QUICK_ENGINE
from tests.support.stations import ROWS, THRESHOLD, broken_parts, good_parts, part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.model import AgentConfig
    from calibration.imaging.preprocess import Image

NUMBERS = count()


def frame(image: Image) -> Frame:
    number = next(NUMBERS)
    return Frame(number, image, 1_700_000_000_000 + number, 2**62 + number)


def config(folder: Path, taught: Path, **sections: Any) -> AgentConfig:  # noqa: ANN401 - whatever the file has
    values = {
        "bundle": str(taught),
        "state_dir": str(folder / "trial"),
        "camera": {"source": 0},
        "engine": QUICK_ENGINE,
        "decision": {"threshold": THRESHOLD},
        **sections,
    }
    return checked(values, folder)


@contextmanager
def trial_of(folder: Path, taught: Path, **sections: object) -> Iterator[Trial]:
    with Trial(config(folder, taught, **sections)) as trial:
        yield trial


def verdicts(trial: Trial) -> list[str]:
    return [each["verdict"] for each in trial.state()["parts"]]


def test_good_parts_are_ok_broken_ones_defects_and_the_newest_comes_first(bundle: Path, tmp_path: Path) -> None:
    with trial_of(tmp_path, bundle) as trial:
        for image in (*good_parts(3), *broken_parts(2), part(7)):
            trial(frame(image))
        assert verdicts(trial) == ["ok", "defect", "defect", "ok", "ok", "ok"]
        assert trial.state()["counts"] == {"ok": 4, "defect": 2, "not decidable": 0}
        for each in trial.state()["parts"]:
            assert (each["ratio"] > 1) == (each["verdict"] == "defect")
            assert (each["reason"], each["zone"], each["isWrong"]) == ("", "", False)


def test_a_frame_that_cannot_be_trusted_is_not_decided_and_says_why(bundle: Path, tmp_path: Path) -> None:
    with trial_of(tmp_path, bundle) as trial:
        trial(frame(np.zeros_like(part(1))))
        trial(frame(part(1)[: ROWS // 2]))
        small, dark = trial.state()["parts"]
        assert (small["verdict"], dark["verdict"]) == ("not decidable", "not decidable")
        assert dark["ratio"] is None
        assert "dark" in dark["reason"]
        assert small["reason"]
        for each in (small, dark):
            assert trial.jpeg(each["id"]).startswith(b"\xff\xd8")


def test_each_zone_is_inspected_by_its_own_bundle(bundle: Path, tmp_path: Path) -> None:
    bundles = {"left": str(bundle), "right": str(bundle)}
    with trial_of(tmp_path, bundle, bundle=bundles, decision={}) as trial:
        trial(frame(part(2000, broken=True)))
        (seen,) = trial.state()["parts"]
        assert (seen["verdict"], seen["zone"] in bundles) == ("defect", True)


def test_nothing_is_sent_to_the_broker_and_no_record_is_kept(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(0.1)
        mqtt = {"host": "127.0.0.1", "port": broker.getsockname()[1]}
        with trial_of(tmp_path, bundle, mqtt=mqtt) as trial:
            for image in broken_parts(3):
                trial(frame(image))
            assert verdicts(trial) == ["defect"] * 3
        with pytest.raises(TimeoutError):
            broker.accept()
    assert not (tmp_path / "trial").exists()


def test_with_a_trigger_only_parts_that_were_asked_for_are_inspected(bundle: Path, tmp_path: Path) -> None:
    trial = Trial(config(tmp_path, bundle, trigger={"source": "command"}))
    trial.ask()  # while the networks are still loaded
    with trial:
        for _ in range(3):
            trial(frame(part(1)))
        assert verdicts(trial) == ["ok"]
        trial.ask()
        trial(frame(part(2, broken=True)))
        trial(frame(part(3)))
        assert verdicts(trial) == ["defect", "ok"]


def test_frames_of_a_part_that_is_interrupted_do_not_count_for_the_next(bundle: Path, tmp_path: Path) -> None:
    trigger = {"source": "command", "frames_per_part": 2}
    with trial_of(tmp_path, bundle, trigger=trigger) as trial:
        trial.ask()
        trial(frame(part(1, broken=True)))
        trial.ask()
        trial(frame(part(2)))
        trial(frame(part(3)))
        assert verdicts(trial) == ["ok"]


def test_the_picture_of_a_defect_has_its_heat_map(bundle: Path, tmp_path: Path) -> None:
    broken = part(2000, broken=True)
    with trial_of(tmp_path, bundle) as trial:
        trial(frame(broken))
        identity = trial.state()["parts"][0]["id"]
        shown = cv2.imdecode(np.frombuffer(trial.jpeg(identity), np.uint8), cv2.IMREAD_COLOR)
        assert shown is not None
        assert shown.shape == broken.shape
        assert np.abs(shown.astype(int) - broken).max() > 60
        assert np.array_equal(trial.frame(identity).image, broken)


def test_only_the_last_parts_are_kept(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_KEPT", 2)
    with trial_of(tmp_path, bundle) as trial:
        trial(frame(part(1)))
        first = trial.state()["parts"][0]["id"]
        for number in (2, 3):
            trial(frame(part(number)))
        assert len(verdicts(trial)) == 2
        assert trial.state()["counts"]["ok"] == 3
        for ask in (trial.jpeg, trial.frame, trial.note_wrong):
            for identity in (first, "", "../../etc/passwd"):
                with pytest.raises(SetupError, match="this part is not kept any more"):
                    ask(identity)


def test_the_pictures_of_the_last_parts_are_bounded(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "_MOST_BYTES", 2 * part(1).nbytes + 1)
    with trial_of(tmp_path, bundle) as trial:
        for number in range(4):
            trial(frame(part(number)))
        assert len(verdicts(trial)) == 2
        monkeypatch.setattr(trial_module, "_MOST_BYTES", 1)
        trial(frame(part(5)))
        assert len(verdicts(trial)) == 1


def test_a_wrong_verdict_is_noted_once(bundle: Path, tmp_path: Path) -> None:
    with trial_of(tmp_path, bundle) as trial:
        trial(frame(part(2, broken=True)))
        before = trial.state()
        identity = before["parts"][0]["id"]
        assert trial.note_wrong(identity) == "defect"
        assert trial.note_wrong(identity) == ""
        assert trial.state()["parts"][0]["isWrong"]
        assert not before["parts"][0]["isWrong"]


def test_a_bundle_that_is_not_whole_ends_it_in_words(bundle: Path, tmp_path: Path) -> None:
    del bundle
    trial = Trial(config(tmp_path, tmp_path / "nowhere"))
    with pytest.raises(ShiftwatchError, match="nowhere"):
        trial.__enter__()
