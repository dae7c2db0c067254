"""A bundle keeps the threshold that was commanded for it, whatever is active meanwhile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent.alerts.defect import Rules
from agent.zones.active_bundle import ActiveBundle
from agent.zones.recipe import Recipe
from agent.zones.versions import Versions
from agent.zones.zone import Zone

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.errors import ShiftwatchError

OLD, NEW = "01d" + "0" * 61, "2e3" + "0" * 61
BASE = {OLD: 100.0, NEW: 150.0}


def loaded(identity: str, configured: float | None = None) -> ActiveBundle:
    threshold = configured or BASE[identity]
    unused: Any = None
    recipe = Recipe(unused, unused, Rules(threshold), (1, 1))
    bundle = cast("Any", SimpleNamespace(identity=identity, path=SimpleNamespace(absolute=lambda: f"/{identity}")))
    return ActiveBundle(bundle, recipe, threshold, "", lambda: None)


@dataclass
class Swap:
    identity: str

    def load(self) -> ActiveBundle:
        return loaded(self.identity)

    def done(self, error: ShiftwatchError | None) -> None:
        assert error is None


class Station:
    """One zone, over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self, identity: str = OLD, configured: float | None = None) -> None:
        versions = Versions(self.folder / "versions.json", OLD)
        self.zone = Zone("", self.folder, self.folder, versions, loaded(identity, configured))
        self.note()

    def go_to(self, identity: str) -> None:
        self.zone.offer(Swap(identity))
        self.zone.recipe_for_next_part()
        self.note()

    def note(self) -> None:
        """Write down what is active, as the station does at its start and after a swap."""
        self.zone.versions.note(self.zone.active.bundle, self.threshold)

    @property
    def threshold(self) -> float:
        return self.zone.active.recipe.rules.threshold

    def listed(self) -> list[tuple[str, float]]:
        """Bundles and thresholds as the list of versions on disk has them."""
        served = Versions(self.folder / "versions.json", OLD).served
        return [(version.identity, version.threshold) for version in served]


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def test_another_bundle_has_its_own_threshold_and_going_back_brings_the_commanded_one(station: Station) -> None:
    station.zone.set_threshold(200.0)
    station.go_to(NEW)
    assert station.threshold == BASE[NEW]
    station.go_to(OLD)
    assert station.threshold == 200.0


@pytest.mark.parametrize("meanwhile", [170.0, None])
def test_a_threshold_commanded_for_another_bundle_takes_none_from_this_one(
    station: Station, meanwhile: float | None
) -> None:
    station.zone.set_threshold(200.0)
    station.go_to(NEW)
    station.zone.set_threshold(meanwhile)
    station.go_to(OLD)
    assert station.threshold == 200.0
    station.go_to(NEW)
    assert station.threshold == (meanwhile or BASE[NEW])


def test_each_bundle_has_its_threshold_after_a_restart(station: Station) -> None:
    station.zone.set_threshold(200.0)
    station.go_to(NEW)
    station.zone.set_threshold(170.0)
    for identity, threshold in ((OLD, 200.0), (NEW, 170.0)):
        station.start(identity)
        assert station.threshold == threshold


def test_what_was_given_up_does_not_come_back(station: Station) -> None:
    station.zone.set_threshold(200.0)
    station.zone.set_threshold(None)
    station.go_to(NEW)
    station.go_to(OLD)
    assert station.threshold == BASE[OLD]
    assert not (station.folder / "threshold.json").exists()


def test_a_configured_threshold_ends_the_commanded_one_for_good(station: Station) -> None:
    station.zone.set_threshold(200.0)
    station.start(configured=120.0)
    assert station.threshold == 120.0
    station.start()
    assert station.threshold == BASE[OLD]


def test_the_list_of_versions_has_the_threshold_that_going_back_brings(station: Station) -> None:
    station.zone.set_threshold(200.0)
    assert station.listed() == [(OLD, 200.0)]
    station.go_to(NEW)
    station.go_to(OLD)
    assert station.listed() == [(OLD, 200.0), (NEW, BASE[NEW]), (OLD, 200.0)]


def test_a_list_of_versions_that_cannot_be_written_leaves_the_threshold_in_force(
    station: Station, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.zones.versions.replace_file", full)
    station.zone.set_threshold(200.0)
    assert station.threshold == 200.0
    assert "No space left on device" in caplog.text


def test_thresholds_of_bundles_long_gone_are_forgotten(station: Station) -> None:
    for number in range(60):
        BASE[f"{number:064x}"] = 100.0
        station.go_to(f"{number:064x}")
        station.zone.set_threshold(200.0)
    stored = json.loads((station.folder / "threshold.json").read_text())
    assert len(stored["before"]) + 1 == 50
    assert stored["for"] == [f"{59:064x}", 100.0]


def test_a_file_of_version_0_1_0_is_read_and_still_written_for_it(station: Station) -> None:
    (station.folder / "threshold.json").write_text(json.dumps({"for": [OLD, BASE[OLD]], "threshold": 200.0}))
    station.start()
    assert station.threshold == 200.0
    station.go_to(NEW)
    station.zone.set_threshold(170.0)
    stored = json.loads((station.folder / "threshold.json").read_text())
    assert (stored["for"], stored["threshold"]) == ([NEW, BASE[NEW]], 170.0)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"for": 1, "threshold": 2}', f'{{"for": ["{OLD}", 100.0], "threshold": -1}}', "null"]
)
def test_a_file_that_makes_no_sense_is_not_used(station: Station, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (station.folder / "threshold.json").write_text(text)
    station.start()
    assert station.threshold == BASE[OLD]
    assert "threshold.json" in caplog.text
    station.zone.set_threshold(200.0)
    station.start()
    assert station.threshold == 200.0
