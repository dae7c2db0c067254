"""Patch SVDD's head: both searches find the nearest, and every cell has the mean of the patches that contain it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.detectors import patch_svdd
from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.patch_svdd import PatchBank, PatchSvdd, PatchSvddHead, level_grids, split_levels
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.onnx_graph import FLOAT, FeatureMap, GraphBuilder
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.levels import two_fields, two_levels
from tests.support.network_features import features_of
from tests.support.oracles import two_field_score
from tests.support.washers import Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

Float32 = NDArray[np.float32]
CHANNELS = 12
steps = st.integers(4, 9)  # of 16 pixels


def pictures(seed: int, count: int, frame: tuple[int, int], offset: float = 0.0) -> Float32:
    """Features of both sizes put together, (n, d, rows, columns), in a few clusters."""
    height, width = frame
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(0, 3, (6, CHANNELS))
    places = height // 4 - 7 + height // 16 - 3, width // 4 - 7
    chosen = centres[random.integers(0, 6, (count, *places))].transpose(0, 3, 1, 2)
    together: Float32 = (offset + chosen + random.normal(size=chosen.shape)).astype(np.float32)
    together[:, :, height // 4 - 7 :, width // 16 - 3 :] = 0
    return together


def patches_of(reduced: Float32, part: int) -> Float32:
    return np.ascontiguousarray(split_levels(reduced)[part].transpose(0, 2, 3, 1).reshape(-1, CHANNELS))


def head_of(good: Float32) -> PatchSvddHead:
    """One that remembers everything."""
    banks = [patches_of(good, part) for part in (0, 1)]
    means = [bank.mean(axis=0) for bank in banks]
    return PatchSvddHead(*(PatchBank(mean, bank - mean) for mean, bank in zip(means, banks, strict=True)))


def through_onnx_runtime(head: PatchSvddHead, reduced: Float32) -> tuple[float, Float32]:
    """Score and map of (d, rows, columns)."""
    graph = GraphBuilder("head")
    channels, rows, columns = reduced.shape
    grid = head.attach(graph, FeatureMap("reduced", (channels, rows, columns)))
    model = graph.model({"reduced": (FLOAT, (1, *reduced.shape))}, {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid))})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    score, score_map = session.run(["score", "map"], {"reduced": reduced[None]})
    return float(score[0]), score_map[0]


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3])
@pytest.mark.parametrize("frame", [(64, 64), (64, 112), (128, 80), (160, 160)])
def test_the_head_is_the_map_of_the_paper(frame: tuple[int, int], offset: float) -> None:
    """Both in the graph and in NumPy."""
    good, tested = pictures(1, 5, frame, offset), pictures(2, 2, frame, offset)
    head = head_of(good)
    in_numpy = head.scores(tested)
    banks = [patches_of(good, part).astype(np.float64) for part in (0, 1)]
    for number, reduced in enumerate(tested):
        score, score_map = two_field_score(banks, split_levels(reduced.astype(np.float64)), frame)
        in_onnx = through_onnx_runtime(head, reduced)
        for seen_score, seen_map in (in_onnx, (float(in_numpy.score[number]), in_numpy.map[number])):
            assert seen_map.shape == (frame[0] // 4, frame[1] // 4)
            assert seen_score == pytest.approx(score, rel=1e-4)
            np.testing.assert_allclose(seen_map, score_map, rtol=1e-4)


@pytest.mark.parametrize("searched", [1, 7, 10_000])
def test_a_bank_is_searched_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch, searched: int) -> None:
    good, tested = pictures(1, 3, (80, 64)), pictures(2, 1, (80, 64))
    head = head_of(good)
    expected = head.scores(tested)
    monkeypatch.setattr(patch_svdd, "_SEARCHED", searched)
    np.testing.assert_allclose(head.scores(tested).map, expected.map, rtol=1e-5)
    score, score_map = through_onnx_runtime(head, tested[0])
    assert score == pytest.approx(float(expected.score[0]), rel=1e-5)
    np.testing.assert_allclose(score_map, expected.map[0], rtol=1e-5)


def test_an_image_in_the_bank_scores_zero() -> None:
    good = pictures(1, 3, (96, 80), offset=100.0)
    head = head_of(good)
    assert head.scores(good).score.tolist() == [0, 0, 0]
    assert through_onnx_runtime(head, good[0])[0] == 0


def test_a_defect_that_only_one_size_sees_does_not_score() -> None:
    """That is what the product means."""
    good = pictures(1, 3, (96, 96))
    strange = good[0].copy()
    strange[:, :5, :5] += 10
    head = head_of(good)
    assert head.scores(strange[None]).score[0] == 0
    strange[:, 17, 0] += 10
    seen = head.scores(strange[None])
    assert seen.score[0] > 0
    assert max(np.unravel_index(int(seen.map[0].argmax()), seen.map.shape[1:])) < 12


@given(steps, steps)
def test_the_levels_are_split_as_they_were_stacked(high: int, wide: int) -> None:
    fine, coarse = (4 * high - 7, 4 * wide - 7), (high - 3, wide - 3)
    together = np.zeros((2, fine[0] + coarse[0], fine[1]), np.float32)
    assert level_grids(together.shape) == (fine, coarse)
    assert tuple(part.shape for part in split_levels(together)) == ((2, *fine), (2, *coarse))


@pytest.mark.parametrize("side", [(64, 64), (80, 128)])
def test_the_reduced_features_hold_both_levels_of_the_network(side: tuple[int, int]) -> None:
    network = feature_network(two_fields(*side), PatchSvdd(), divide_brightness=False)
    frame = np.random.default_rng(0).integers(0, 256, (*side, 3)).astype(np.uint8)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        fine, coarse = split_levels(engine.reduced(frame))
        features = features_of(engine, frame)
    np.testing.assert_array_equal(fine, features[:8])
    assert features.shape == (16, *fine.shape[1:])
    assert coarse.shape == (8, side[0] // 16 - 3, side[1] // 16 - 3)
    middle = features[8:, fine.shape[1] // 2, fine.shape[2] // 2]
    assert (middle >= coarse.min(axis=(1, 2)) - 1e-5).all()
    assert (middle <= coarse.max(axis=(1, 2)) + 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "candidates"), [(10, 10_000), (50, 20), (10_000, 50)])
def test_the_banks_keep_to_their_limits(tmp_path: Path, entries: int, candidates: int) -> None:
    reduced = pictures(0, 12, (80, 80))
    with FeatureStore(tmp_path, reduced.shape[1:]) as store:
        for each in reduced:
            store.append(each)
        head = PatchSvdd(entries=entries, candidates=candidates).fit(store, Folds([range(12)]), [CHANNELS] * 2).head
    assert isinstance(head, PatchSvddHead)
    for part, bank in enumerate((head.fine, head.coarse)):
        patches = patches_of(reduced, part)
        assert len(bank.bank) == min(entries, len(patches))
        distances = np.linalg.norm((bank.bank + bank.mean)[:, None] - patches[None], axis=2)
        assert distances.min(axis=1).max() < 1e-5
        assert len(set(distances.argmin(axis=1).tolist())) == len(bank.bank)


def test_all_patches_are_kept_that_memory_allows_and_given_numbers_stay() -> None:
    shape, images = (64, 60, 49), 100
    everything, given = PatchSvdd(entries=None), PatchSvdd(entries=100_000, candidates=200_000)
    assert everything.within(4096, shape, images) == everything
    fewer = everything.within(700, shape, images)
    assert fewer.entries is not None
    assert 10_000 < fewer.entries < 60 * 49 * images
    more = replace(fewer, entries=fewer.entries + 300)
    assert fewer.memory_mib(shape, images) <= 700 < more.memory_mib(shape, images)
    chosen = PatchSvdd().within(150, shape, images)
    assert chosen.entries == PatchSvdd().entries
    assert chosen.candidates is not None
    assert 10_000 < chosen.candidates < 60 * 49 * images
    assert given.within(700, shape, images) == given


def test_features_of_another_backbone_are_refused(tmp_path: Path) -> None:
    settings = Settings(Preprocess(64, 64), PatchSvdd(), threads=1)
    with pytest.raises(SettingError, match=r"(?s)cannot take the features .*8, 8\) and .*4, 4\).*the encoders that"):
        calibrate(Drawn([washer(0)]), two_levels(), settings, tmp_path / "bundle", lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"steps": -1},
        {"batch": 0},
        {"entries": 0},
        {"candidates": 0},
        {"encoders": "other"},
        {"svdd_weight": -1.0},
        {"svdd_weight": float("nan")},
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(options))):
        PatchSvdd(**options)
