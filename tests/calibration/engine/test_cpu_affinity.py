from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from calibration.backbones.backbone import filterbank_backbone
from calibration.detectors.head import WhiteningHead
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.cpu_affinity import Cores
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.network.fusion import feature_network, fused_network, reduced_shape


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """A machine of which this process may use the cores 1, 2, 4 and 7; where the caller has been moved to."""
    moves: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 4, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, where: moves.append(set(where)))
    return moves


@pytest.mark.parametrize(("threads", "affinities", "caller"), [(4, "3;5;8", {1}), (3, "5;8", {1, 2})])
def test_with_nearly_all_cores_each_thread_gets_its_own_and_the_caller_stays_off_them(
    cores: list[set[int]], threads: int, affinities: str, caller: set[int]
) -> None:
    taken = Cores(threads)
    assert taken.affinities == affinities
    with suppress(ZeroDivisionError), taken.left_to_threads():
        assert cores == [caller]
        _ = 1 / 0
    assert cores == [caller, {1, 2, 4, 7}]


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_otherwise_the_scheduler_chooses_the_cores(cores: list[set[int]], threads: int) -> None:
    taken = Cores(threads)
    with taken.left_to_threads():
        pass
    assert (taken.affinities, cores) == (None, [])


def test_a_single_thread_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert Cores(1).affinities is None
    assert Cores(2).affinities == "2"


def test_cores_that_were_taken_away_do_not_stop_an_inference(
    cores: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    done = []
    with Cores(4).left_to_threads():
        done.append(1)
    assert (done, cores) == ([1], [])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_an_engine_has_its_threads_where_it_says(network: bytes) -> None:
    def narrow() -> set[str]:
        """Threads of this process that have one core only."""
        tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        return {str(task) for task in tasks if len(os.sched_getaffinity(task)) == 1}

    every = os.sched_getaffinity(0)
    before = narrow()
    with OnnxRuntimeEngine(network, len(every)) as engine:
        assert len(narrow() - before) == len(every) - 1
        engine(np.zeros((64, 64, 3), np.uint8))
    assert os.sched_getaffinity(0) == every


@pytest.fixture(scope="module")
def network() -> bytes:
    backbone, detector = filterbank_backbone(64, 64), MeanShift()
    channels, *_ = reduced_shape(feature_network(backbone, detector, divide_brightness=False))
    blank = WhiteningHead(np.zeros((1, channels), np.float32), np.eye(channels, dtype=np.float32)[None])
    made: bytes = fused_network(backbone, detector, blank, divide_brightness=False).SerializeToString()
    return made
