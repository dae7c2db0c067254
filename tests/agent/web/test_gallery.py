"""All kept pictures in the browser: found, looked at and marked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest

from agent.archive.quota import MIB, Limits
from agent.archive.snapshot import Heat, Snapshot
from agent.archive.store import Store
from agent.messages.records import Evaluation, Result, ResultCode, ZoneResult
from agent.web.gallery import Gallery
from tests.support.chromium import Tab, require_chromium
from tests.support.pages import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = 120
START_MS = 1_790_000_000_000
KINDS = [Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE]


def result(number: int) -> Result:
    evaluation = KINDS[number % 3]
    zone = ZoneResult(seq=number, evaluation=evaluation, code=0, score=50.0 + number, threshold=40.0)
    good = ZoneResult(seq=number, evaluation=Evaluation.OK, code=0, score=1.0, threshold=40.0)
    return Result(
        result_id=f"{number * 2_654_435_761 % 2**32:08x}{number:024x}",
        seq=number,
        part_id=f"Lid {number:03}",
        created_at_ms=START_MS + 60_000 * number,
        evaluation=evaluation,
        code=ResultCode.BLURRED if evaluation is Evaluation.NOT_DECIDABLE else ResultCode.NONE,
        score=float("nan") if evaluation is Evaluation.NOT_DECIDABLE else 50.0 + number,
        threshold=100.0,
        zones={"left": zone, "right": good} if number % 2 else {"left": good, "right": zone},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder with an archive."""
    folder = tmp_path_factory.mktemp("state")
    store = Store(folder / "archive", Limits(100 * MIB))
    for number in range(COUNT):
        image = np.full((60, 80, 3), number, np.uint8)
        heat = (Heat(None, np.full((4, 4), 200.0, np.float32), 100.0),) if number % 3 == 1 else ()
        assert store.keep(Snapshot(image=image, heat=heat, region=None, result=result(number))) is None
    store.close()
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as served:
        yield served


def found(served: Served, **asked: object) -> dict[str, Any]:
    response = served.ask(f"/archive?{urlencode(asked)}")
    content: dict[str, Any] = json.loads(response.read())
    assert response.status == 200, content
    return content


def numbers(content: dict[str, Any]) -> list[int]:
    return [int(entry["part"].split()[1]) for entry in content["images"]]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, set(range(COUNT))),
        ({"verdict": "not_ok"}, set(range(1, COUNT, 3))),
        ({"code": 9}, set(range(2, COUNT, 3))),
        ({"zone": "left"}, {number for number in range(1, COUNT, 3) if number % 2}),
        ({"part": "LID 01"}, set(range(10, 20))),
        ({"part": "%"}, set()),
        ({"since": START_MS + 60_000 * 100, "until": START_MS + 60_000 * 110}, set(range(100, 111))),
        ({"ratio": 1.5}, {number for number in range(100, COUNT) if number % 3 != 2}),
        ({"label": "none"}, set(range(COUNT))),
        ({"label": "good"}, set()),
        ({"verdict": "ok", "part": "lid 00", "ratio": 0.53}, {3, 6, 9}),
    ],
)
def test_pictures_are_found_by_what_is_known_of_them_the_newest_first(
    served: Served, asked: dict[str, object], expected: set[int]
) -> None:
    content = found(served, **asked)
    listed = numbers(content)
    while content["hasMore"]:
        content = found(served, **asked, before=content["images"][-1]["id"])
        listed += numbers(content)
    assert listed == sorted(expected, reverse=True)
    assert found(served, **asked)["count"] == len(expected)


def test_zones_and_causes_to_choose_from_are_named(served: Served) -> None:
    content = found(served)
    assert content["zones"] == ["left", "right"]
    assert content["causes"]["9"] == "picture is blurred"
    first = content["images"][0]
    assert (first["verdict"], first["why"], first["zone"]) == ("NOT DECIDABLE", "picture is blurred", "")


@pytest.mark.parametrize(
    "asked",
    [
        {"verdict": "bad"},
        {"code": "x"},
        {"code": 99},
        {"since": -1},
        {"until": 10**40},
        {"ratio": "much"},
        {"label": "nice"},
    ],
)
def test_what_makes_no_sense_is_refused(served: Served, asked: dict[str, object]) -> None:
    response = served.ask(f"/archive?{urlencode(asked)}")
    assert response.status == 400
    assert "not clear" in json.loads(response.read())["error"]


def test_a_picture_that_is_gone_ends_the_list(served: Served) -> None:
    assert found(served, before="0" * 32) == {"images": [], "hasMore": False, "canChange": True}


@pytest.mark.slow
def test_the_token_is_asked_for_only_where_pictures_can_be_marked(served: Served, folder: Path) -> None:
    require_chromium()
    with serving(folder, token=None) as read_only, Tab() as tab:
        for page, is_hidden in ((served, False), (read_only, True)):
            tab.open(f"http://127.0.0.1:{page.port}/gallery.html")
            tab.until("document.getElementById('caption').textContent.startsWith('120 pictures')")
            assert tab.ask("document.getElementById('unlock').hidden") is is_hidden
        assert found(read_only)["canChange"] is False
        assert tab.complaints == []


def test_a_picture_comes_with_and_without_its_heat_map(served: Served) -> None:
    reject = result(1).result_id
    images = {}
    for size in ("small", "large", "frame"):
        content = np.frombuffer(served.ask(f"/archive/{reject}/{size}.jpg").read(), np.uint8)
        images[size] = np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))
    assert np.ptp(images["frame"].astype(int), axis=2).max() <= 2, "grey, as it was taken"
    assert np.ptp(images["large"].astype(int), axis=2).max() > 30


def test_a_thumbnail_needs_no_frame_to_be_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def imread(_: str) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(cv2, "imread", imread)
    reject = np.frombuffer(Gallery(folder / "archive").jpeg(result(1).result_id, "small"), np.uint8)
    image = np.asarray(cv2.imdecode(reject, cv2.IMREAD_COLOR))
    assert np.ptp(image.astype(int), axis=2).max() > 30, "with the heat map"


def test_a_picture_that_version_0_1_0_kept_has_a_thumbnail(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(100 * MIB))
    snapshot = Snapshot(image=np.full((600, 800, 3), 90, np.uint8), heat=(), region=None, result=result(0))
    assert store.keep(snapshot) is None
    store.close()
    cv2.imwrite(str(tmp_path / snapshot.reference), snapshot.image)
    small = np.frombuffer(Gallery(tmp_path).jpeg(result(0).result_id, "small"), np.uint8)
    assert np.asarray(cv2.imdecode(small, cv2.IMREAD_COLOR)).shape == (240, 320, 3)


@pytest.mark.slow
def test_a_person_finds_looks_at_and_steps_through_pictures_by_keyboard(served: Served) -> None:
    require_chromium()
    with Tab() as tab:
        tab.look(390, 844)
        tab.open(f"http://127.0.0.1:{served.port}/gallery.html")
        tab.until("document.getElementById('caption').textContent.startsWith('120 pictures')")
        tab.until("document.querySelector('#pictures img').naturalWidth > 50")
        assert tab.ask("document.documentElement.scrollWidth") <= 390
        tab.ask("window.scrollTo(0, document.body.scrollHeight)")
        tab.until("document.querySelectorAll('#pictures li').length === 96")
        tab.ask("window.scrollTo(0, document.body.scrollHeight)")
        tab.until("document.querySelectorAll('#pictures li').length === 120")
        tab.ask(
            "const it = document.querySelector('[name=verdict]'); it.value = 'not_ok';"
            "it.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        tab.until("document.getElementById('caption').textContent.startsWith('40 pictures')")
        assert tab.ask("location.search") == "?verdict=not_ok"
        tab.ask("document.querySelector('#pictures .open').click()")
        caption = "document.getElementById('large-caption').textContent"
        assert "Lid 118" in tab.until(caption)
        press = "document.getElementById('large').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
        tab.ask(press % "ArrowRight")
        assert "Lid 115" in tab.ask(caption)
        tab.until("document.getElementById('large-picture').naturalWidth > 50")
        tab.ask(press % "h")
        assert tab.ask("document.getElementById('large-picture').src.endsWith('/frame.jpg')")
        assert tab.ask("document.getElementById('good').disabled"), "without the token nothing can be marked"
        for _ in range(2):
            tab.ask(press % "ArrowLeft")
        assert "Lid 118" in tab.ask(caption)
        tab.ask("document.getElementById('close').click()")
        focused = "document.activeElement.closest('li')?.dataset.id"
        assert tab.until(focused) == result(118).result_id
        assert tab.complaints == []
