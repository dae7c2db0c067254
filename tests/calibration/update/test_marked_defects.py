"""The threshold that would find what people marked as defects, and its cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.statistics.threshold import share_above, working_point
from calibration.update.marked_defects import MarkedDefects

GOOD = 400 * np.exp(0.3 * np.random.default_rng(0).standard_normal(200))
THRESHOLD = working_point(GOOD, 0.01).threshold


def marked(*scores: float) -> MarkedDefects:
    return MarkedDefects(scores, THRESHOLD, GOOD)


def test_the_proposal_finds_all_of_them_and_states_its_cost() -> None:
    defects = marked(5000.0, 660.0, 700.0)
    assert (defects.found, defects.are_found) == (1, (True, False, False))
    proposal = defects.proposal
    assert proposal is not None
    assert proposal.threshold == 653.0
    assert (proposal.found, proposal.marked, proposal.instead_of) == (3, 3, THRESHOLD)
    assert proposal.false_rejects == pytest.approx(np.mean(GOOD > 653.0), abs=0.02)
    assert proposal.false_rejects > proposal.false_rejects_now == pytest.approx(0.01, abs=0.003)
    one_in = float(f"{1 / proposal.false_rejects:.2g}")
    assert proposal.words == (
        f"threshold 653 instead of {THRESHOLD:,.4g} would find 3 of the 3 marked defects and reject about "
        f"1 good part in {one_in:g} instead of 1 in {float(f'{1 / proposal.false_rejects_now:.2g}'):g}"
    )


def test_one_that_looks_better_than_half_of_the_good_parts_is_given_up() -> None:
    proposal = marked(660.0, 200.0, 0.0).proposal
    assert proposal is not None
    assert (proposal.threshold, proposal.found, proposal.marked) == (653.0, 1, 3)
    assert marked(5000.0, 200.0).proposal is None


def test_where_all_are_found_or_none_is_marked_nothing_is_proposed() -> None:
    assert marked(5000.0, 6000.0).proposal is None
    assert marked().proposal is None


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8))
def test_a_proposal_always_finds_more_and_rejects_at_most_half_of_the_good_parts(scores: list[float]) -> None:
    defects = marked(*scores)
    proposal = defects.proposal
    if proposal is None:
        return
    assert proposal.threshold < THRESHOLD
    assert proposal.found == sum(score > proposal.threshold for score in scores) > defects.found
    assert share_above(GOOD, proposal.threshold) == proposal.false_rejects <= 0.5
