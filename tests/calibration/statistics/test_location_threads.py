"""What is computed for each location by itself is the same with any number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from calibration.statistics.covariance import whitening
from calibration.statistics.leave_one_out import LeaveOneOut
from calibration.statistics.location_threads import in_blocks, location_threads
from calibration.statistics.moments import Moments

LOCATIONS, IMAGES, CHANNELS = 50, 12, 6


def results() -> list[np.ndarray[tuple[int, ...], np.dtype[np.floating]]]:
    random = np.random.default_rng(0)
    images = random.normal(size=(IMAGES, CHANNELS, LOCATIONS, 1)).astype(np.float32)
    moments, others = (Moments.of(random.normal(size=(LOCATIONS, IMAGES, CHANNELS))) for _ in range(2))
    moments.add(others)
    scorer = LeaveOneOut(moments, lambda local: local + np.eye(CHANNELS), own_weight=1.0, order=8.0)
    factors = whitening(moments.covariance(), lambda local: local + np.eye(CHANNELS), np.float64)
    return [moments.mean, moments.scatter, factors, scorer.scores(images).map]


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_results_do_not_depend_on_the_number(threads: int) -> None:
    alone = results()
    with location_threads(threads):
        together = results()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_keep_their_order_and_cover_everything() -> None:
    with location_threads(4):
        blocks = in_blocks(lambda block: range(50)[block], 50)
    assert [each for block in blocks for each in block] == list(range(50))


def test_work_is_shared_within_the_block_and_only_there() -> None:
    both = threading.Barrier(2, timeout=5)
    with location_threads(2):
        in_blocks(lambda _: both.wait(), 32)  # ends only if two run at once
    assert set(in_blocks(lambda _: threading.current_thread(), 64)) == {threading.current_thread()}


def test_an_error_in_a_thread_is_raised() -> None:
    def fail(block: slice) -> None:
        raise ZeroDivisionError(block)

    with location_threads(2), pytest.raises(ZeroDivisionError):
        in_blocks(fail, 64)
