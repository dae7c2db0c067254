"""PatchCore: the search finds the nearest, the coreset covers, and precision is kept far from the origin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.memory_bank import greedy_coreset, sample
from calibration.detectors.patchcore import PatchCore
from calibration.detectors.patchcore_head import PatchCoreHead, nearest_entries
from calibration.errors import SettingError
from calibration.onnx_graph import FLOAT, FeatureMap, GraphBuilder
from tests.support.oracles import memory_score

if TYPE_CHECKING:
    from pathlib import Path

Float32 = NDArray[np.float32]
seeds = st.integers(0, 2**32)
CHANNELS, HEIGHT, WIDTH = 24, 5, 6


def points(seed: int, count: int, channels: int = CHANNELS, offset: float = 0.0) -> Float32:
    """In a few clusters, as patches are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(0, 3, (6, channels))
    return (offset + centres[random.integers(0, 6, count)] + random.normal(size=(count, channels))).astype(np.float32)


def pictures(seed: int, count: int, offset: float = 0.0) -> Float32:
    """(n, d, h, w)."""
    patches = points(seed, count * HEIGHT * WIDTH, offset=offset)
    return np.ascontiguousarray(patches.reshape(count, HEIGHT, WIDTH, CHANNELS).transpose(0, 3, 1, 2))


def head_of(bank: Float32, neighbours: int) -> PatchCoreHead:
    mean = bank.mean(axis=0)
    return PatchCoreHead(mean, bank - mean, nearest_entries(bank - mean, neighbours))


def through_onnx_runtime(head: PatchCoreHead, reduced: Float32) -> tuple[float, Float32]:
    """Score and map of (d, h, w)."""
    channels, height, width = reduced.shape
    graph = GraphBuilder("head")
    grid = head.attach(graph, FeatureMap("reduced", (channels, height, width)))
    model = graph.model({"reduced": (FLOAT, (1, *reduced.shape))}, {"score": (FLOAT, (1,)), "map": (FLOAT, (1, *grid))})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    score, score_map = session.run(["score", "map"], {"reduced": reduced[None]})
    return float(score[0]), score_map[0]


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e3, -1e4])
@pytest.mark.parametrize(("entries", "neighbours"), [(2, 2), (9, 9), (5, 9), (70, 9), (300, 3), (1000, 9)])
def test_the_head_is_an_exhaustive_search_with_the_weight_of_the_paper(
    entries: int, neighbours: int, offset: float
) -> None:
    """On the same float32 numbers, which are all that is left of a pattern far from the origin."""
    bank = points(1, entries, offset=offset)
    head = head_of(bank, neighbours)
    tested = pictures(2, 4, offset)
    in_numpy = head.scores(tested)
    for number, reduced in enumerate(tested):
        score, score_map = memory_score(bank.astype(np.float64), reduced.astype(np.float64), neighbours)
        in_onnx = through_onnx_runtime(head, reduced)
        for seen_score, seen_map in (in_onnx, (float(in_numpy.score[number]), in_numpy.map[number])):
            assert seen_score == pytest.approx(score, rel=1e-4)
            np.testing.assert_allclose(seen_map, score_map, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
def test_scores_far_from_the_origin_keep_their_digits(tmp_path: Path, offset: float) -> None:
    good, tested = pictures(4, 12, offset), pictures(5, 1, offset)[0]
    with FeatureStore(tmp_path, good.shape[1:]) as store:
        for each in good:
            store.append(each)
        head = PatchCore(coreset=1.0).fit(store, Folds([range(12)]), [CHANNELS]).head
    assert isinstance(head, PatchCoreHead)
    patches = good.transpose(0, 2, 3, 1).reshape(-1, CHANNELS).astype(np.float64)
    score, score_map = memory_score(patches, tested.astype(np.float64), 9)
    for seen_score, seen_map in (
        through_onnx_runtime(head, tested),
        (float(head.scores(tested[None]).score[0]), head.scores(tested[None]).map[0]),
    ):
        assert seen_score == pytest.approx(score, rel=1e-4)
        np.testing.assert_allclose(seen_map, score_map, rtol=1e-4)


def test_an_image_in_the_bank_scores_zero() -> None:
    reduced = pictures(3, 1)[0]
    head = head_of(reduced.reshape(CHANNELS, -1).T, 5)
    assert through_onnx_runtime(head, reduced)[0] == head.scores(reduced[None]).score[0] == 0


def test_the_score_of_a_patch_close_to_the_bank_keeps_its_digits() -> None:
    """The square of its distance is a millionth of the squares that the search takes from one another."""
    bank = points(1, 50) * 10
    reduced = bank[7, :, None, None].copy()
    reduced[3] += 0.125
    head = head_of(bank, 9)
    expected, _ = memory_score(bank.astype(np.float64), reduced.astype(np.float64), 9)
    assert expected > 0.12
    for seen in (through_onnx_runtime(head, reduced)[0], float(head.scores(reduced[None]).score[0])):
        assert seen == pytest.approx(expected, rel=1e-4)


def test_a_distance_whose_exponential_overflows_is_kept() -> None:
    bank = points(1, 50) * 300
    reduced = pictures(2, 1)[0]
    head = head_of(bank, 9)
    expected, _ = memory_score(bank.astype(np.longdouble), reduced.astype(np.longdouble), 9)
    assert expected > np.log(np.finfo(np.float64).max)
    for seen in (through_onnx_runtime(head, reduced)[0], float(head.scores(reduced[None]).score[0])):
        assert seen == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@given(seeds, st.integers(2, 60), st.integers(1, 8))
def test_each_entry_is_among_its_nearest_ones_even_among_copies(seed: int, entries: int, count: int) -> None:
    bank = points(seed, entries, channels=3)
    bank[entries // 2 :] = bank[0]
    nearest = nearest_entries(bank, count)
    assert nearest.shape == (entries, min(count, entries))
    distances = np.linalg.norm(bank[:, None].astype(np.float64) - bank[None], axis=2)
    for entry, found in enumerate(nearest):
        assert entry in found
        assert len(set(found.tolist())) == len(found)
        expected = np.sort(distances[entry])[: len(found)]
        np.testing.assert_allclose(np.sort(distances[entry, found]), expected, atol=5e-3)


def naive_coreset(patches: Float32, count: int) -> list[int]:
    """Roth et al. 2022, algorithm 1: repeatedly the point farthest from all chosen ones."""
    wide = patches.astype(np.float64)
    chosen = [int(np.linalg.norm(wide, axis=1).argmin())]
    while len(chosen) < count:
        to_nearest = [min(np.linalg.norm(point - wide[each]) for each in chosen) for point in wide]
        chosen.append(int(np.argmax(to_nearest)))
    return chosen


def cover_radius(patches: Float32, chosen: NDArray[np.int64]) -> float:
    return float(np.linalg.norm(patches[:, None] - patches[chosen][None], axis=2).min(axis=1).max())


@pytest.mark.parametrize("seed", range(5))
def test_the_coreset_is_that_of_the_naive_algorithm(seed: int) -> None:
    patches = points(seed, 80, channels=5)
    assert greedy_coreset(patches, 25).tolist() == naive_coreset(patches, 25)


@given(seeds, st.integers(1, 120), st.integers(1, 10))
def test_no_point_is_chosen_twice_even_among_copies(seed: int, count: int, distinct: int) -> None:
    patches = points(seed, distinct, channels=4)[np.random.default_rng(seed).integers(0, distinct, 120)]
    chosen = greedy_coreset(patches, count)
    assert len(set(chosen.tolist())) == count
    if count >= distinct:
        assert cover_radius(patches, chosen) == 0


def with_rare_ones(seed: int, count: int, channels: int) -> Float32:
    """One patch in a hundred is of another kind, as scratches of the tray or the edge of a part are."""
    patches = points(seed, count, channels)
    patches[::100] += np.random.default_rng(seed).normal(0, 10, patches[::100].shape).astype(np.float32)
    return patches


def random_radius(patches: Float32, count: int) -> float:
    """Mean of a few choices at random."""
    random = np.random.default_rng(0)
    choices = (random.choice(len(patches), count, replace=False) for _ in range(5))
    return float(np.mean([cover_radius(patches, chosen) for chosen in choices]))


@given(seeds)
def test_the_coreset_covers_better_than_a_random_choice_and_within_twice_the_best(seed: int) -> None:
    patches = with_rare_ones(seed, 300, 6)
    radius = cover_radius(patches, greedy_coreset(patches, 20))
    assert radius <= random_radius(patches, 20)
    # Of 21 points that are all farther apart than twice a radius, no 20 discs of that radius cover each.
    apart = greedy_coreset(patches, 21)
    distances = np.linalg.norm(patches[apart][:, None] - patches[apart][None], axis=2)
    assert distances[~np.eye(21, dtype=bool)].min() >= radius * (1 - 1e-5)


def test_a_random_projection_still_covers(tmp_path: Path) -> None:
    """Beyond 128 channels the choice is made in a projection; the bank holds all channels."""
    patches = with_rare_ones(0, 1200, 300)
    with FeatureStore(tmp_path, (300, 6, 10)) as store:
        for picture in patches.reshape(20, 6, 10, 300).transpose(0, 3, 1, 2):
            store.append(np.ascontiguousarray(picture))
        head = PatchCore(coreset=0.05).fit(store, Folds([range(20)]), [300]).head
    assert isinstance(head, PatchCoreHead)
    bank = head.bank + head.mean
    assert bank.shape == (60, 300)
    distances = np.linalg.norm(bank[:, None] - patches[None], axis=2)
    assert distances.min(axis=1).max() < 1e-4
    radius = distances.min(axis=0).max()
    assert radius <= random_radius(patches, 60)


@pytest.mark.parametrize("limit", [1, 50, 599, 600, 10_000])
def test_no_more_patches_than_the_limit_are_sampled(tmp_path: Path, limit: int) -> None:
    reduced = pictures(0, 20)
    with FeatureStore(tmp_path, reduced.shape[1:]) as store:
        for each in reduced:
            store.append(each)
        images = [1, 5, *range(7, 20)]
        whole = reduced[images].transpose(0, 2, 3, 1).reshape(-1, CHANNELS)
        found = sample(store.batches(images), whole.shape, limit, np.random.default_rng(0))
        again = sample(store.batches(images), whole.shape, limit, np.random.default_rng(0))
    assert len(found) == min(limit, len(whole))
    np.testing.assert_array_equal(found, again)
    rows = {tuple(row) for row in whole.tolist()}
    assert all(tuple(row) in rows for row in found.tolist())
    assert len({tuple(row) for row in found.tolist()}) == len(found)


def test_the_coreset_of_all_patches_covers_better_than_that_of_a_sample(tmp_path: Path) -> None:
    patches = with_rare_ones(0, 1200, CHANNELS)
    with FeatureStore(tmp_path, (CHANNELS, 6, 10)) as store:
        for picture in patches.reshape(20, 6, 10, CHANNELS).transpose(0, 3, 1, 2):
            store.append(np.ascontiguousarray(picture))
        fits = [
            PatchCore(coreset=0.05, candidates=limit).fit(store, Folds([range(20)]), [CHANNELS])
            for limit in (None, 200)
        ]
    radii = []
    for fit in fits:
        assert isinstance(fit.head, PatchCoreHead)
        bank = fit.head.bank + fit.head.mean
        radii.append(np.linalg.norm(patches[:, None] - bank[None], axis=2).min(axis=1).max())
    assert radii[0] < radii[1]
    assert [fit.parameters["candidates"] for fit in fits] == [1200, 200]
    assert {fit.parameters["patches"] for fit in fits} == {1200}


def test_as_many_candidates_are_taken_as_the_memory_allows() -> None:
    detector, shape = PatchCore(), (192, 14, 14)
    needed = detector.memory_mib(shape, 761)
    assert detector.within(needed, shape, 761) == detector
    halved = detector.within(needed / 2, shape, 761)
    assert halved.candidates is not None
    assert (
        halved.memory_mib(shape, 761)
        <= needed / 2
        < replace(halved, candidates=halved.candidates + 1).memory_mib(shape, 761)
    )
    assert PatchCore(candidates=1000).within(needed / 2, shape, 761).candidates == 1000
    assert detector.within(1, shape, 761) == detector  # the bank alone is larger: it is refused, not made smaller


@pytest.mark.parametrize(("coreset", "candidates", "entries"), [(0.1, 10_000, 60), (0.5, 100, 100), (0.001, 500, 9)])
def test_the_bank_is_a_share_of_all_patches_within_the_limits(
    tmp_path: Path, coreset: float, candidates: int, entries: int
) -> None:
    reduced = pictures(0, 20)
    with FeatureStore(tmp_path, reduced.shape[1:]) as store:
        for each in reduced:
            store.append(each)
        fit = PatchCore(coreset=coreset, candidates=candidates).fit(store, Folds([range(20)]), [CHANNELS])
    assert fit.parameters["bank"] == entries


@pytest.mark.parametrize(
    "options",
    [
        {"coreset": 0.0},
        {"coreset": 1.1},
        {"neighbours": 1},
        {"aggregation": 2},
        {"aggregation": 0},
        {"candidates": 8},
        {"stride": 0},
        {"dimensions": 0},
        {"smoothing": 0},
        {"banks": "two"},
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(options))):
        PatchCore(**options)
