"""A gallery of 20,000 pictures opens and is searched without a wait."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pytest

from tests.support.long_past import keep_pictures
from tests.support.pages import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FEW, MANY = 200, 20_000
MOST_TIMES = 8
TURNS = 15

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Served]]:
    """Pages by the number of their pictures."""
    images = [np.full((30, 40, 3), grey, np.uint8) for grey in (50, 100, 150)]
    folders: dict[int, Path] = {count: tmp_path_factory.mktemp(f"of{count}") for count in (FEW, MANY)}
    for count, folder in folders.items():
        keep_pictures(folder / "archive", images, count)
    with serving(folders[FEW]) as few, serving(folders[MANY]) as many:
        yield {FEW: few, MANY: many}


def listed(served: Served, asked: dict[str, object]) -> dict[str, Any]:
    response = served.ask(f"/archive?{urlencode(asked)}")
    content: dict[str, Any] = json.loads(response.read())
    assert response.status == 200
    return content


def fastest_s(galleries: dict[int, Served], asked: dict[int, list[str]]) -> dict[int, float]:
    """The shortest of several turns for each gallery, asked for something new each time."""
    took_s: dict[int, list[float]] = {FEW: [], MANY: []}
    for turn in range(TURNS):
        for count, served in galleries.items():
            began_s = time.perf_counter()
            assert served.ask(asked[count][turn % len(asked[count])]).status == 200
            took_s[count].append(time.perf_counter() - began_s)
    return {count: min(each) for count, each in took_s.items()}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"verdict": "not_ok"},
        {"code": 9},
        {"zone": "left"},
        {"part": "nothing like it"},
        {"ratio": 1.5},
        {"label": "none"},
        {"label": "good"},
        {"verdict": "ok", "since": 0, "until": 2**52},
    ],
)
def test_finding_among_a_hundred_times_as_many_pictures_takes_a_few_times_as_long_at_most(
    galleries: dict[int, Served], asked: dict[str, object]
) -> None:
    path = f"/archive?{urlencode(asked)}"
    took_s = fastest_s(galleries, {count: [path] for count in galleries})
    assert took_s[MANY] <= MOST_TIMES * took_s[FEW]


def test_older_pictures_and_thumbnails_come_as_fast(galleries: dict[int, Served]) -> None:
    newest = {count: listed(served, {})["images"] for count, served in galleries.items()}
    middle = {count: listed(served, {"part": f"Lid {count // 2:05}"})["images"] for count, served in galleries.items()}
    for asked in (
        {count: [f"/archive?before={image['id']}" for image in images] for count, images in middle.items()},
        {count: [f"/archive/{image['id']}/small.jpg" for image in images] for count, images in newest.items()},
    ):
        took_s = fastest_s(galleries, asked)
        assert took_s[MANY] <= MOST_TIMES * took_s[FEW]
