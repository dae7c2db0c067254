"""Teaching shows its progress and what came of it, can be cancelled, and is there after a restart."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.errors import SetupError
from agent.setup import teaching as teaching_module
from agent.setup.draft import Drafts
from agent.setup.teaching import Teaching
from agent.setup.tray import Tray
from calibration.bundle.bundle import open_bundle
from calibration.imaging.preprocess import Preprocess
from calibration.statistics.threshold import working_point
from calibration.workstation.fit.pipeline import FitOptions, calibrate_folder
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support import pretend_teaching, teaching_on_a_device
from tests.support.set_up import fill_tray
from tests.support.stations import until
from tests.support.washers import washer

if TYPE_CHECKING:
    from collections.abc import Callable

STRAY, COPY = "012.png", "013.png"
ENDS_WITHIN_S = 60.0


class Table:
    """What a teaching needs, in a folder; another one on the same folder is a restart."""

    def __init__(self, home: Path, **first: object) -> None:
        self.home = home
        self.drafts = Drafts(home / "setup" / "draft.yaml", home, first)
        self.tray = Tray(home / "setup" / "good")
        self.teaching = Teaching(home / "setup" / "taught", self.drafts, self.tray)

    @property
    def taught(self) -> Path:
        return self.home / "setup" / "taught"

    @property
    def state(self) -> dict[str, Any]:
        return self.teaching.state()

    def teach(self) -> list[dict[str, Any]]:
        """Teach to the end; returns the progress that was seen."""
        seen: list[dict[str, Any]] = []

        def is_over() -> bool:
            progress = self.state["progress"]
            if progress and progress not in seen:
                seen.append(progress)
            return not self.teaching.is_under_way

        self.teaching.start()
        until(is_over, ENDS_WITHIN_S)
        return seen


# What the real program does


@pytest.fixture(scope="module")
def really_taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Thirteen good washers, a scratched one, and one twice; and the progress of teaching them."""
    home = tmp_path_factory.mktemp("station")
    fill_tray(home, [*map(washer, range(12)), washer(50, scratched=True), washer(3), washer(60)])
    table = Table(home)
    table.drafts.change(false_reject_rate=0.1)
    return home, table.teach()


@pytest.fixture
def table(really_taught: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Table:
    """A copy of it, after a restart."""
    shutil.copytree(really_taught[0], tmp_path / "copy")
    return Table(tmp_path / "copy")


@pytest.mark.slow
def test_progress_rises_to_the_end_with_the_name_of_each_step(
    really_taught: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, seen = really_taught
    shares = [each["share"] for each in seen]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.2
    assert 0.8 <= shares[-1] <= 1.0
    assert {"learning", "drawing", "validating"} <= {each["step"] for each in seen}
    assert all(each["leftS"] >= 0 for each in seen if each.get("leftS") is not None)
    assert any(each.get("leftS") for each in seen)


@pytest.mark.slow
def test_what_was_taught_is_there_after_a_restart_with_its_facts(table: Table) -> None:
    state = table.state
    assert (state["progress"], state["error"], state["number"]) == (None, "", 1)
    (zone,) = state["zones"]
    bundle = open_bundle(table.teaching.bundles(table.drafts.draft)[""])
    assert zone["threshold"] == bundle.working_point.threshold
    assert (zone["images"], zone["falseRejectRate"], zone["skipped"]) == (14, 0.1, [])  # the copy counts once
    assert zone["without"] is None
    scores = [each["score"] for each in zone["highest"]]
    assert scores == sorted(scores, reverse=True)
    assert [each["ratio"] for each in zone["highest"]] == [score / zone["threshold"] for score in scores]
    assert {each["name"] for each in zone["highest"]} <= set(table.tray.names)
    assert zone["forecast"]["sizes"]
    assert 0 <= zone["forecast"]["found"] <= 1
    assert table.teaching.images_tried == 14
    json.dumps(state, allow_nan=False)


@pytest.mark.slow
def test_a_stray_and_copies_are_marked(table: Table) -> None:
    marks = table.teaching.marks
    assert marks[STRAY] == "unlike the others"
    assert marks[COPY] == "a copy of 003.png"
    assert len(marks) <= 3


def test_near_copies_are_marked_but_not_all_images_of_a_sequence(tmp_path: Path) -> None:
    findings = [
        {"what": "a sequence", "images": [f"/good/{n}.png is like /good/{n - 1}.png" for n in range(1, 10)]},
        {"what": "near copies", "images": ["/good/7.png is like /good/2.png"]},
    ]
    facts = {
        "zone": "",
        "images": 10,
        "findings": findings,
        "suspicious": [{"name": "4.png", "score": 9.0, "ratio": 2.0}],
        "highest": [],
    }
    (tmp_path / "setup" / "taught" / "1" / "bundle").mkdir(parents=True)
    (tmp_path / "setup" / "taught" / "1" / "taught.json").write_text(json.dumps([facts]))
    table = Table(tmp_path, taught=1)
    assert table.teaching.marks == {"7.png": "like 2.png", "4.png": "unlike the others"}


@pytest.mark.slow
def test_it_is_what_fit_makes_of_the_same_images(table: Table, tmp_path: Path) -> None:
    settings = Settings(Preprocess(224, 224), learn=PreprocessRequest(choose_size=True), false_reject_rate=0.1)
    fitted = calibrate_folder(FitOptions(table.tray.folder, tmp_path / "fitted", settings), lambda *_: None)
    assert table.state["zones"][0]["threshold"] == pytest.approx(fitted.working_point.threshold, rel=1e-6)


@pytest.mark.slow
def test_the_effect_of_leaving_images_out_is_that_of_the_threshold_without_their_scores(table: Table) -> None:
    (zone,) = table.state["zones"]
    bundle = open_bundle(table.teaching.bundles(table.drafts.draft)[""])
    point, forecast = bundle.working_point, bundle.forecast
    assert forecast is not None
    scores = list(bundle.reference()["good_scores"])
    for count in (1, 2, 3):
        out = zone["highest"][:count]
        table.drafts.throw_out([each["name"] for each in out], is_out=True)
        without = table.state["zones"][0]["without"]
        kept = list(scores)
        for each in out:
            kept.remove(each["score"])
        assert len(kept) == len(scores) - count
        expected = working_point(np.array(kept), 0.1, point.parts).threshold
        assert without == {"threshold": expected, "found": forecast.found(threshold=expected)}
    assert expected < point.threshold
    table.drafts.throw_out([each["name"] for each in zone["highest"]], is_out=False)
    assert table.state["zones"][0]["without"] is None
    table.drafts.throw_out(["000.png"], is_out=True)
    names = {each["name"] for each in zone["highest"]}
    assert (table.state["zones"][0]["without"] is None) == ("000.png" not in names)


def test_of_two_images_with_the_same_score_only_the_one_that_is_left_out_counts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = [*np.linspace(10.0, 20.0, 12), 30.0, 30.0]
    bundle = SimpleNamespace(
        working_point=working_point(np.array(scores), 0.1), forecast=None, reference=lambda: {"good_scores": scores}
    )
    monkeypatch.setattr(teaching_module, "open_bundle", lambda _: bundle)
    effect = teaching_module._effect(Path("bundle"), [30.0])
    assert effect == {"threshold": working_point(np.array(scores[:-1]), 0.1).threshold, "found": None}
    assert teaching_module._effect(Path("bundle"), scores[:5]) is None


@pytest.mark.slow
def test_the_effect_with_a_bundle_that_was_damaged_meanwhile_is_unknown_and_the_state_is_there(table: Table) -> None:
    (zone,) = table.state["zones"]
    (table.taught / "1" / "bundle" / "reference.npz").write_bytes(b"")
    table.drafts.throw_out([zone["highest"][0]["name"]], is_out=True)
    assert table.state["zones"][0]["without"] is None


@pytest.mark.slow
def test_images_that_are_thrown_out_are_not_taught(table: Table) -> None:
    table.drafts.throw_out([STRAY, COPY], is_out=True)
    table.teach()
    assert (table.state["number"], table.state["error"]) == (2, "")
    assert table.state["zones"][0]["images"] == 12  # with the copy also what it is a copy of
    assert not {STRAY, COPY} & table.teaching.marks.keys()
    assert open_bundle(table.teaching.bundles(table.drafts.draft)[""]).manifest.images.left_out


@pytest.mark.slow
def test_a_device_teaches_without_the_packages_of_a_workstation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = replace(teaching_module._PROGRAM, module=teaching_on_a_device.__name__)
    monkeypatch.setattr(teaching_module, "_PROGRAM", program)
    fill_tray(tmp_path, [washer(number) for number in range(10)])
    table = Table(tmp_path, false_reject_rate=0.1)
    table.teach()
    assert (table.state["number"], table.state["error"]) == (1, "")


@pytest.mark.slow
def test_why_the_real_program_fails_is_said_in_words(tmp_path: Path) -> None:
    fill_tray(tmp_path, [washer(1)] * 12)
    table = Table(tmp_path)
    table.teach()
    assert "alike" in table.state["error"] or "differ" in table.state["error"]
    assert "\n" not in table.state["error"]
    assert (table.state["number"], table.state["zones"]) == (0, [])
    assert list(table.taught.iterdir()) == []


# How it is started, cancelled and kept, with a program that does at once what a test says


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what the program does."""
    program = replace(teaching_module._PROGRAM, module=pretend_teaching.__name__)
    monkeypatch.setattr(teaching_module, "_PROGRAM", program)
    fill_tray(tmp_path, [washer(number) for number in range(10)])

    def write(word: str) -> None:
        (tmp_path / "setup" / "script").write_text(word)

    write("teach")
    return write


def test_the_program_is_asked_for_what_the_draft_says(script: Callable[[str], None], tmp_path: Path) -> None:
    del script
    fill_tray(tmp_path, [washer(number) for number in range(12)])
    table = Table(tmp_path)
    zones = [{"name": "a", "region": [1, 2, 3, 4], "ignored": [[5, 6, 7, 8]]}, {"name": "b", "region": None}]
    table.drafts.change(zones=zones, false_reject_rate=0.02, thrown_out=["000.png", "gone.png"])
    table.teach()
    order = json.loads((table.taught / "1" / "order.json").read_text())
    assert order["zones"] == [zones[0], {"name": "b", "region": None, "ignored": []}]
    assert (order["falseRejectRate"], order["leftOut"]) == (0.02, ["000.png", "gone.png"])
    assert (order["images"], order["out"]) == (str(tmp_path / "setup" / "good"), str(table.taught / "1"))
    assert table.teaching.bundles(table.drafts.draft) == {
        "a": table.taught / "1" / "a",
        "b": table.taught / "1" / "b",
    }


def test_too_few_images_are_refused_in_words(script: Callable[[str], None], tmp_path: Path) -> None:
    del script
    table = Table(tmp_path)
    table.drafts.change(thrown_out=["000.png"])
    with pytest.raises(SetupError, match=r"9 images are too few to teach\n  collect 10 or more"):
        table.teaching.start()
    assert not table.teaching.is_under_way
    assert table.state["progress"] is None


def test_of_many_starts_at_once_one_begins_and_the_others_are_refused(
    script: Callable[[str], None], tmp_path: Path
) -> None:
    script("hang")
    table = Table(tmp_path)
    barrier, refusals = threading.Barrier(6), []

    def start() -> None:
        barrier.wait()
        try:
            table.teaching.start()
        except SetupError as error:
            refusals.append(error.what)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals == ["it is being taught already"] * 5
    until((table.taught / "1" / "order.json").exists)
    assert [path.name for path in table.taught.iterdir()] == ["1"]
    table.teaching.cancel()
    until(lambda: not table.teaching.is_under_way)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_teaching_that_is_cancelled_leaves_what_was_taught_before(
    script: Callable[[str], None], tmp_path: Path, *, at_once: bool
) -> None:
    table = Table(tmp_path)
    table.teach()
    script("hang")
    table.teaching.start()
    if not at_once:
        until(lambda: (table.state["progress"] or {}).get("step") == "learning")
    table.teaching.cancel()
    until(lambda: not table.teaching.is_under_way)
    assert (table.state["error"], table.state["number"], len(table.state["zones"])) == ("", 1, 1)
    assert [path.name for path in table.taught.iterdir()] == ["1"]
    assert table.teaching.bundles(table.drafts.draft) == {"": table.taught / "1" / "bundle"}
    script("teach")
    table.teach()
    assert table.state["number"] == 2


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("fail", "only 3 images can be read; collect more"),
        ("die", "the process that teaches was killed by SIGKILL; see the log for why; perhaps the device has too"),
        ("garble", "JSONDecodeError"),
    ],
)
def test_a_teaching_that_fails_says_why_and_leaves_what_was_taught_before(
    script: Callable[[str], None], tmp_path: Path, word: str, says: str
) -> None:
    table = Table(tmp_path)
    table.teach()
    ended: list[int] = []
    table.teaching.taught = lambda: ended.append(1)
    script(word)
    table.teach()
    assert says in table.state["error"]
    until(lambda: ended == [1])
    assert (table.state["number"], len(table.state["zones"])) == (1, 1)
    assert Table(tmp_path).state["zones"] == table.state["zones"]
    script("teach")
    table.teach()
    assert (table.state["error"], table.state["number"]) == ("", 2)


def test_what_a_power_cut_left_half_taught_is_not_used(script: Callable[[str], None], tmp_path: Path) -> None:
    del script
    Table(tmp_path).teach()
    (tmp_path / "setup" / "taught" / "2" / "bundle").mkdir(parents=True)
    (tmp_path / "setup" / "taught" / "copy of 1").mkdir()
    table = Table(tmp_path)
    assert table.state["number"] == 1
    table.teach()
    assert table.state["number"] == 3
    assert (table.taught / "copy of 1").is_dir()


def test_the_last_two_teachings_are_kept(script: Callable[[str], None], tmp_path: Path) -> None:
    del script
    table = Table(tmp_path)
    for _ in range(4):
        table.teach()
    assert sorted(path.name for path in table.taught.iterdir()) == ["3", "4"]


def test_bundles_that_were_removed_by_hand_are_not_taught_any_more(
    script: Callable[[str], None], tmp_path: Path
) -> None:
    del script
    Table(tmp_path).teach()
    shutil.rmtree(tmp_path / "setup" / "taught" / "1" / "bundle")
    table = Table(tmp_path)
    assert table.state["zones"] == []
    with pytest.raises(SetupError, match="these zones are not taught yet"):
        table.teaching.bundles(table.drafts.draft)


@pytest.mark.parametrize(
    ("zones", "says"),
    [
        ([{"region": [0, 0, 30, 40]}], "the region has changed since it was taught"),
        ([{"region": [0, 0, 64, 64], "ignored": [[1, 2, 3, 4]]}], "the region has changed since it was taught"),
        ([{"name": "a"}], "these zones are not taught yet"),
    ],
)
def test_other_zones_than_those_that_were_taught_must_be_taught_again(
    script: Callable[[str], None], tmp_path: Path, zones: list[dict[str, Any]], says: str
) -> None:
    del script
    table = Table(tmp_path)
    table.drafts.change(zones=[{"region": [0, 0, 64, 64]}])
    table.teach()
    with pytest.raises(SetupError, match=says):
        table.teaching.bundles(table.drafts.change(zones=zones))
    table.teaching.bundles(table.drafts.change(zones=[{"name": None, "region": [0, 0, 64, 64], "ignored": []}]))
    table.drafts.change(zones=zones)
    table.teach()
    table.teaching.bundles(table.drafts.draft)
