"""What a set-up has decided is kept whole, whatever interrupts it, and nothing unusable comes into it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SetupError
from agent.setup import draft as draft_module
from agent.setup.draft import Draft, Drafts, usable
from calibration.imaging.region import Region

DECIDED: dict[str, Any] = {
    "camera": {"source": 0, "width": 640, "height": 480, "exposure": "auto"},
    "zones": [{"name": "left", "region": [1, 2, 30, 40], "ignored": [[5, 6, 7, 8]]}, {"name": "right", "region": None}],
    "trigger": {"source": "motion", "settled_ms": 300},
    "false_reject_rate": 0.05,
    "station": {"line": "1e3", "name": "Prüfer 2"},
    "mqtt": {"host": "10.0.0.5", "tls": {"enabled": True}},
    "taught": 3,
}


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    return again(tmp_path)


def again(folder: Path, **first: object) -> Drafts:
    """The set-up, started another time."""
    return Drafts(folder / "draft.yaml", folder, first)


def test_a_set_up_that_is_interrupted_after_any_decision_continues_there(tmp_path: Path, drafts: Drafts) -> None:
    for name, value in DECIDED.items():
        drafts.change(**{name: value})
        continued = again(tmp_path, camera={"source": 9})
        assert continued.draft == drafts.draft
        assert continued.values == drafts.values
        drafts = continued
    assert drafts.draft.zones[0].roi == Region(1, 2, 30, 40)
    assert drafts.draft.zones[1].roi is None
    assert drafts.draft.station.line == "1e3"


def test_a_new_draft_begins_with_the_first_keys_and_relative_paths_start_at_its_folder(tmp_path: Path) -> None:
    drafts = again(tmp_path, camera={"source": "belt.avi"})
    assert drafts.draft.camera is not None
    assert drafts.draft.camera.source == str(tmp_path / "belt.avi")
    assert not (tmp_path / "draft.yaml").exists()


def test_other_users_cannot_read_a_draft(tmp_path: Path, drafts: Drafts) -> None:
    drafts.change(camera={"source": "rtsp://user:secret@camera/1"})
    assert (tmp_path / "draft.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"zones": None}, "zones: null is not allowed; use a list of 1 to 12 zones"),
        ({"zones": []}, "zones: [] is not allowed; use a list of 1 to 12 zones"),
        ({"zones": [{"name": f"z{number}"} for number in range(13)]}, "use a list of 1 to 12 zones"),
        ({"zones": [7]}, "zones.0: 7 is not allowed; use the keys name, region, ignored"),
        (
            {"trigger": {"source": "passing", "part_px": [64, 64]}},
            "this page cannot teach from a belt that does not stop; use shiftwatch-calibrate fit CAMERA --passing",
        ),
        ({"zones": [{}, {}]}, "several zones need a name each, all different"),
        ({"zones": [{"name": "a"}, {"name": "a"}]}, "several zones need a name each, all different"),
        ({"zones": [{"name": "../up"}]}, "zones.0.name: '../up' is not allowed; use letters, digits, - and _"),
        ({"zones": [{"region": [1, 2, 3]}]}, "zones.0.region: [1, 2, 3] is not allowed; use x, y, width and height"),
        ({"zones": [{"region": [1, 2, 3.5, 4]}]}, "zones.0.region.2: 3.5 is not allowed; use x, y, width and height"),
        ({"zones": [{"region": [-1, 2, 3, 4]}]}, "zones.0.region.0: -1 is not allowed"),
        ({"zones": [{"region": [0, 0, 9, 2**15 + 1]}]}, "zones.0.region.3: 32769 is not allowed"),
        ({"zones": [{"region": [1, 2, 0, 4]}]}, "zones.0: a rectangle without an area; draw it again"),
        ({"zones": [{"ignored": [[1, 2, 3, 0]]}]}, "zones.0: a rectangle without an area; draw it again"),
        ({"zones": [{"ignored": [[1, 2, 3, 4]] * 21}]}, "is not allowed; use at most 20 rectangles"),
        ({"zones": [{"nam": "a"}]}, "zones.0.nam: unknown key; did you mean 'name'?"),
        ({"thrown_out": [f"{number}.png" for number in range(1501)]}, "use at most 1500 images"),
        ({"thrown_out": ["x" * 65]}, "thrown_out.0: "),
        ({"false_reject_rate": 0.6}, "false_reject_rate: 0.6 is not allowed; use a number above 0, at most 0.5"),
        ({"camera": {"source": []}}, "camera.source: [] is not allowed; use a device number"),
        ({"camera": 3}, "camera: 3 is not allowed; use the keys source"),
        ({"camera": {"source": 0, "width": 640}}, "width and height belong together"),
        ({"trigger": {"source": "motion", "settled_ms": 20_000}}, "settled_ms 20000 is not below unsettled_after_s"),
        ({"station": {"line": "a/b"}}, "station.line: 'a/b' is not allowed"),
        ({"station": {"line": "bell \x07"}}, "station.line: a value has the character U+0007, which is not text"),
        ({"station": {"line": "\ud800"}}, "station.line: a value has the character U+D800, which is not text"),
        ({"mqtt": {"port": 10**10}}, "mqtt.port: a number of 11 digits is too large"),
        ({"taught": -1}, "taught: -1 is not allowed"),
        ({"bundle": "x"}, "bundle: unknown key"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_is_not_usable_is_refused_in_words_and_changes_nothing(
    tmp_path: Path, drafts: Drafts, values: dict[str, Any], says: str
) -> None:
    drafts.change(station={"line": "7"})
    before, content = drafts.draft, (tmp_path / "draft.yaml").read_bytes()
    changes: list[set[str]] = []
    drafts.changed = changes.append
    with pytest.raises(SetupError) as refusal:
        drafts.change(**values)
    assert says in refusal.value.one_line
    assert refusal.value.one_line.endswith("; nothing has changed")
    assert (drafts.draft, (tmp_path / "draft.yaml").read_bytes(), changes) == (before, content, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100)
@given(st.sampled_from(list(Draft.model_fields)), JSON)
def test_no_value_fails_in_another_way_than_in_words(key: str, value: object) -> None:
    try:
        usable(Draft, {key: value}, Path("/station"))
    except SetupError as error:
        assert error.one_line.startswith("this cannot be used: ")  # noqa: PT017 - or it is usable


def test_the_names_of_the_keys_that_changed_are_reported_once_they_have(drafts: Drafts) -> None:
    changes: list[set[str]] = []
    drafts.changed = changes.append
    drafts.change(trigger={"source": "motion"}, taught=0)
    drafts.change(trigger={"source": "motion"}, taught=1)
    assert changes == [{"trigger", "taught"}, {"taught"}]


def test_a_disk_that_is_full_changes_nothing(tmp_path: Path, drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts.change(taught=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(draft_module, "replace_file", full)
        with pytest.raises(SetupError, match=r"cannot write .*draft\.yaml: No space left on device"):
            drafts.change(taught=2)
    assert drafts.draft.taught == again(tmp_path).draft.taught == 1
    drafts.change(taught=2)
    assert again(tmp_path).draft.taught == 2


@pytest.mark.parametrize(
    "content",
    [
        b"camera: [unclosed",
        b"\xff\xfe",
        b"- 1",
        b"just words",
        b"camera: {source: 0, widht: 640}",
        b"zones: 1",
        b"[" * 1100,
        b"a: !!python/object:os.system x",
        b"a: 2024-99-99",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_draft_that_cannot_be_read_is_named_and_the_way_on_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "draft.yaml").write_bytes(content)
    with pytest.raises(SetupError) as refusal:
        again(tmp_path)
    assert refusal.value.what.startswith(f"cannot read {tmp_path / 'draft.yaml'}: ")
    assert refusal.value.remedy == "remove it, to begin the set-up again"
    assert (tmp_path / "draft.yaml").read_bytes() == content


def test_two_threads_that_decide_about_different_keys_lose_nothing(tmp_path: Path, drafts: Drafts) -> None:
    names = [f"{number}.png" for number in range(12)]

    def decide(each: int) -> None:
        for name in names[each::3]:
            drafts.throw_out([name], is_out=True)
            decisions: list[dict[str, Any]] = [{"taught": 5}, {"station": {"line": name}}, {"false_reject_rate": 0.1}]
            drafts.change(**decisions[each])

    threads = [threading.Thread(target=decide, args=(each,)) for each in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    draft = again(tmp_path).draft
    assert sorted(draft.thrown_out) == sorted(names)
    assert (draft.taught, draft.false_reject_rate, draft.station.line) == (5, 0.1, names[10])


def test_an_image_is_thrown_out_once_and_taken_back(drafts: Drafts) -> None:
    drafts.throw_out(["a.png", "b.png"], is_out=True)
    drafts.throw_out(["a.png"], is_out=True)
    assert sorted(drafts.draft.thrown_out) == ["a.png", "b.png"]
    drafts.throw_out(["a.png", "never.png"], is_out=False)
    assert drafts.draft.thrown_out == ["b.png"]
