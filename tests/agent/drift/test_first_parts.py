"""Whether calibration and line agree, after the first hundred parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.drift.first_parts import PARTS, FirstParts, FirstPartsFinding

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = {"brightness": ("darker", "brighter"), "colour": ("bluer", "redder"), "sharpness": ("less sharp", "sharper")}
LOOKS = {"brightness": np.linspace(-0.1, 0.1, 50), "colour": np.zeros(50)}


def found_after(scores: NDArray[np.float64], first: FirstParts, look: tuple[float, ...] = (0.0, 0.0)) -> int | None:
    """Number of parts after which there is a finding."""
    for number, score in enumerate(scores, start=1):
        if first.is_over:
            return None
        first.add(float(score), look)
        if first.finding is not None:
            return number
    return None


def scores_of(count: int, spread: float, random: np.random.Generator, factor: float = 1.0) -> NDArray[np.float64]:
    """Log-normal ones."""
    return factor * 3000 * np.exp(spread * random.standard_normal(count))


def first_of(images: int, spread: float, random: np.random.Generator) -> FirstParts:
    return FirstParts(scores_of(images, spread, random), LOOKS, WORDS, sequential=False)


# The spreads (of logarithms) of the sets at hand are 0.16 to 0.49.
@pytest.mark.parametrize(("factor", "spread", "least"), [(1.5, 0.2, 0.95), (2.0, 0.3, 0.98), (0.5, 0.3, 0.98)])
@pytest.mark.parametrize("images", [30, 100, 300])
def test_another_median_is_found_after_a_hundred_parts(factor: float, spread: float, least: float, images: int) -> None:
    random = np.random.default_rng(images)
    times = [
        found_after(scores_of(PARTS, spread, random, factor), first_of(images, spread, random)) for _ in range(200)
    ]
    assert {each for each in times if each is not None} == {PARTS}
    assert np.mean([each is not None for each in times]) >= least


@pytest.mark.parametrize("rejects", [0.0, 0.3])
@pytest.mark.parametrize("images", [10, 30, 100, 300])
def test_where_nothing_has_changed_nothing_is_found_even_with_many_defective_parts(images: int, rejects: float) -> None:
    random, found = np.random.default_rng(images), 0
    for _ in range(500):
        scores = scores_of(PARTS, 0.3, random)
        scores[random.random(PARTS) < rejects] *= 20
        first = first_of(images, 0.3, random)
        found += found_after(scores, first) is not None
        assert first.is_over or first.finding
    assert found <= (5 if rejects == 0.0 else 60 if images == 10 else 20)


def test_it_ends_with_a_hundred_parts_like_those_of_calibration_and_does_not_come_back() -> None:
    random = np.random.default_rng(0)
    first = first_of(100, 0.2, random)
    assert found_after(scores_of(PARTS, 0.2, random, 2.0), first) == PARTS
    before = first.finding
    for score in scores_of(PARTS, 0.2, random, 2.2):
        first.add(float(score), (0.0, 0.0))
    assert first.finding == before
    for score in scores_of(PARTS, 0.2, random):
        first.add(float(score), (0.0, 0.0))
    assert (first.finding, first.is_over) == (None, True)


def test_the_finding_names_the_look_and_proposes_what_to_do() -> None:
    random = np.random.default_rng(0)
    first = first_of(100, 0.2, random)
    found_after(scores_of(PARTS, 0.2, random, 2.0), first, (-0.4, 0.0))
    assert first.finding is not None
    assert first.finding.look == "darker"
    higher = FirstPartsFinding(7212.0, 3229.0, None)
    assert higher.words == "the first 100 parts score 2.2 times as high as calibrated"
    assert first.finding.words.startswith("the first 100 parts are darker and score ")
    assert "--mode full" in higher.remedy
    assert "--mode threshold" in FirstPartsFinding(1000.0, 3229.0, None).remedy
    assert "--mode full" in FirstPartsFinding(1000.0, 3229.0, "darker").remedy
    assert higher.payload() == {"parts": 100, "now": 7212.0, "calibrated": 3229.0, "look": None}


def test_too_few_images_or_a_still_video_say_nothing() -> None:
    random = np.random.default_rng(0)
    assert first_of(9, 0.2, random).is_over
    assert FirstParts(np.linspace(1, 2, 300), LOOKS, WORDS, sequential=True).is_over
    assert FirstParts(np.zeros(30), LOOKS, WORDS, sequential=False).is_over
    assert not math.isnan(first_of(10, 0.2, random)._calibrated)
