"""The lamp or the lens of a running station changes: what the line hears of it, and after how many parts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.demo.conveyor import REGION, parts
from agent.drift.first_parts import PARTS
from agent.drift.sudden_change import ENDS_AFTER, ROW
from calibration.backbones.backbone import filterbank_backbone
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.running import Running
from tests.support.stations import write_config, write_pictures
from tests.support.washers import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from calibration.imaging.preprocess import Image
    from tests.support.real_broker import Listener, Mosquitto

pytestmark = pytest.mark.slow

OK, NOT_OK = 1, 2


@pytest.fixture(scope="module")
def flanges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the demo's parts."""
    good = Drawn([part.image for part in parts(60, seed=1)])
    settings = Settings(Preprocess(224, 224, REGION), threads=1)
    path = tmp_path_factory.mktemp("flanges") / "bundle"
    return calibrate(good, filterbank_backbone(224, 224), settings, path, lambda *_: None).path


@pytest.fixture(autouse=True)
def each_frame_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a line with a trigger: the pictures are played as fast as they are inspected."""
    monkeypatch.setattr("agent.from_config._ONE_PART_S", 0.0)


def flange(count: int, seed: int) -> list[Image]:
    return [part.image for part in parts(count, seed=seed)]


def under(images: Iterable[Image], *blue_green_red: float) -> list[Image]:
    """As another lamp shows them."""
    return [np.clip(image * np.array(blue_green_red), 0, 255).astype(np.uint8) for image in images]


class Shown:
    """What a station has published about pictures, each of them a part."""

    def __init__(self, listener: Listener, broker: Mosquitto, bundle: Path, images: list[Image], folder: Path) -> None:
        pictures = write_pictures(folder / "pictures", images)
        self.config = write_config(folder, bundle, pictures, broker.port, decision={"clear_after": 1})
        station = Running(self.config)
        listener.wait_for(lambda heard: len(heard.on("/result")) == len(images), 60)
        station.wait()
        listener.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "offline")
        self.results = listener.on("/result")
        self.alerts = listener.on("/alert")
        self.places = {result["resultId"]: place for place, result in enumerate(self.results)}

    def drift(self) -> list[dict[str, Any]]:
        return [alert for alert in self.alerts if alert["cause"].startswith("drift")]

    def verdicts(self, first: int, end: int) -> set[int]:
        return {result["resultEvaluation"] for result in self.results[first:end]}


@pytest.fixture
def shown(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], flanges: Path, tmp_path: Path
) -> Callable[[list[Image]], Shown]:
    mosquitto.start()
    return lambda images: Shown(listen(mosquitto.port), mosquitto, flanges, images, tmp_path)


def test_a_lamp_that_becomes_warmer_is_named_after_twenty_parts_which_stay_rejected(
    shown: Callable[[list[Image]], Shown],
) -> None:
    good, changed = 30, 40
    seen = shown([*flange(good, 2), *under(flange(changed, 3), 0.95, 1.0, 1.05), *flange(10, 4)])
    began, ended = seen.drift()
    assert seen.verdicts(good - 1, good) == {OK}, "the row begins with the change"
    first = seen.results[good]
    clock = time.strftime("%H:%M", time.localtime(first["creationTime"] / 1000))
    assert seen.verdicts(good, good + changed) == {NOT_OK}
    assert (began["type"], began["severity"]) == ("new", 800)
    assert began["cause"] == f"drift: all parts since {clock}: check lamp and lens"
    assert began["startTime"] == first["creationTime"]
    assert seen.places[began["resultId"]] == good + ROW - 1
    assert (ended["type"], ended["alertId"]) == ("end", began["alertId"])
    assert seen.places[ended["resultId"]] == good + changed + ENDS_AFTER - 1


def test_a_lens_that_slips_out_of_focus_is_named_too(shown: Callable[[list[Image]], Shown]) -> None:
    blurred = [np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8) for image in flange(ROW + 1, 3)]
    seen = shown([*flange(5, 2), *blurred])
    began, ended = seen.drift()
    named = seen.places[began["resultId"]]
    assert 5 <= named < 5 + ROW, "a good part just before may be rejected, too"
    assert seen.verdicts(named + 1 - ROW, 5 + ROW) == {NOT_OK}
    assert (ended["type"], ended["resultId"]) == ("end", None)  # with the station


def test_a_tool_that_scratches_sixty_parts_in_a_row_at_one_place_is_a_defect(
    shown: Callable[[list[Image]], Shown],
) -> None:
    scratched = flange(3 * ROW, 3)
    for image in scratched:
        cv2.line(image, (250, 170), (330, 200), (40, 40, 40), 5)
    seen = shown([*flange(5, 2), *scratched])
    assert seen.verdicts(5, 5 + 3 * ROW) == {NOT_OK}
    assert {alert["cause"] for alert in seen.alerts} == {"defect"}


def test_a_line_that_is_darker_than_its_calibration_is_named_after_the_first_hundred_parts_with_what_to_do(
    shown: Callable[[list[Image]], Shown], caplog: pytest.LogCaptureFixture
) -> None:
    seen = shown(under(flange(PARTS + 5, 5), 0.88, 0.88, 0.88))
    assert OK in seen.verdicts(0, PARTS), "the threshold still passes some"
    began, _ = seen.drift()
    assert began["cause"].startswith("drift: the first 100 parts are darker and score 1.")
    assert (seen.places[began["resultId"]], began["severity"]) == (PARTS - 1, 200)
    assert "shiftwatch-agent recalibrate --mode full" in caplog.text
