"""The oracles of the papers on cases that can be computed by hand, and against SciPy and scikit-learn."""

from __future__ import annotations

from math import e, exp, sqrt

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.calibration.papers import (
    oracle_hermann,
    oracle_padim,
    oracle_patch_svdd,
    oracle_patchcore,
    oracle_rippel,
)
from tests.calibration.papers.oracle_resampling import bilinear, gaussian_blur
from tests.calibration.papers.oracle_shrinkage import ledoit_wolf

RANDOM = np.random.default_rng(0)


def test_shrinkage_of_four_samples() -> None:
    covariance, share = ledoit_wolf(np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]]))
    assert share == pytest.approx(17 / 18)
    assert covariance == pytest.approx(np.diag([2 / 18 + 1.25 * 17 / 18, 0.5 / 18 + 1.25 * 17 / 18]))


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 50])
def test_shrinkage_is_that_of_scikit_learn(count: int) -> None:
    from sklearn.covariance import ledoit_wolf as reference_ledoit_wolf  # noqa: PLC0415 - takes seconds to import

    samples = RANDOM.normal(size=(count, 8)) @ RANDOM.normal(size=(8, 8)) + 3
    covariance, share = ledoit_wolf(samples)
    expected, expected_share = reference_ledoit_wolf(samples)
    assert share == pytest.approx(expected_share)
    assert covariance == pytest.approx(expected)


def test_bilinear_of_two_by_two() -> None:
    enlarged = bilinear(np.array([[0.0, 1], [2, 3]]), (4, 4))
    assert enlarged[0] == pytest.approx([0, 0.25, 0.75, 1])
    assert enlarged[:, 0] == pytest.approx([0, 0.5, 1.5, 2])
    assert enlarged[1, 1] == pytest.approx(0.75)


def test_blur_is_that_of_scipy_also_where_the_kernel_is_wider_than_the_map() -> None:
    image = RANDOM.normal(size=(40, 9))
    assert gaussian_blur(image, 4) == pytest.approx(gaussian_filter(image, 4))


def test_hermann_sizes_in_pixels() -> None:
    assert oracle_hermann.patch_pixels(4, receptive_field=16, stride=16) == 64
    assert oracle_hermann.pooling_cells(80, 64, stride=16) == 2


def test_hermann_joins_neighbours() -> None:
    joined = oracle_hermann.patches(np.arange(9.0).reshape(1, 1, 3, 3), 2)
    assert joined.shape == (1, 4, 2, 2)
    assert joined[0, :, 1, 0].tolist() == [3, 4, 6, 7]


def test_hermann_t2_of_a_constant_shift() -> None:
    statistics = oracle_hermann.Statistics(1, np.zeros(2), np.eye(2), 0)
    shifted = np.ones((1, 2, 3, 3)) * np.array([3.0, 4])[:, None, None]
    assert oracle_hermann.global_score(shifted, statistics) == pytest.approx([9 * 25])
    scores = oracle_hermann.score_map(shifted, statistics, rho=2)
    assert scores == pytest.approx(np.full((1, 2, 2), 25))
    assert oracle_hermann.score_map(shifted, statistics, rho=2, count=4) == pytest.approx(4 * scores)
    assert oracle_hermann.score(scores) == pytest.approx([25])


def test_hermann_averages_before_it_measures() -> None:
    statistics = oracle_hermann.Statistics(1, np.zeros(1), np.eye(1), 0)
    alternating = np.array([[[[1.0, -1], [-1, 1]]]])
    assert oracle_hermann.score_map(alternating, statistics, rho=1).min() == 1
    assert oracle_hermann.score_map(alternating, statistics, rho=2).max() == 0
    assert oracle_hermann.global_score(alternating, statistics) == [0]


def test_hermann_score_is_the_largest_of_the_map() -> None:
    assert oracle_hermann.score(np.array([[[1.0, 2], [7, 3]], [[4, 0], [1, 0]]])).tolist() == [7, 4]


def test_hermann_covariance_is_that_of_single_patches_around_one_mean() -> None:
    features = RANDOM.normal(size=(6, 2, 4, 4))
    statistics = oracle_hermann.fit(features, 2)
    rows = [
        features[image, :, row : row + 2, column : column + 2].ravel()
        for image in range(6)
        for row in range(3)
        for column in range(3)
    ]
    expected, share = ledoit_wolf(np.array(rows))
    assert statistics.covariance == pytest.approx(expected)
    assert statistics.shrinkage == pytest.approx(share)
    assert statistics.mean == pytest.approx(np.mean(rows, axis=0))


def test_hermann_takes_the_nearest_of_several_means() -> None:
    statistics = oracle_hermann.Statistics(1, np.zeros(1), np.eye(1), 0)
    features = np.array([[[[0.0, 9]]], [[[10, 4]]]])
    means = oracle_hermann.several_means(features, 1, 1, count=2)
    assert means.tolist() == [[0], [10]]
    assert oracle_hermann.score_map(features, statistics, 1, means).tolist() == [[[0, 1]], [[0, 16]]]
    assert oracle_hermann.global_score(features, statistics, means).tolist() == [2 * 4.5**2, 2 * 9]


def test_hermann_means_of_locations() -> None:
    statistics = oracle_hermann.Statistics(1, np.zeros(1), np.eye(1), 0)
    features = np.array([[[[0.0, 9]]], [[[10, 5]]]])
    means = oracle_hermann.location_means(features, 1, 1)
    assert oracle_hermann.score_map(features, statistics, 1, means).tolist() == [[[25, 4]], [[25, 4]]]


def axes(lengths: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Features at plus and minus these lengths along each axis, as a level of one location."""
    ends = np.diag(lengths)
    return np.concatenate([ends, -ends])[:, :, None, None] + 7


def test_rippel_sums_distances_over_levels() -> None:
    gaussians = [oracle_rippel.Gaussian(np.zeros(2), np.ones(2), np.eye(2), np.eye(2))] * 2
    levels = [np.array([3.0, 4]).reshape(1, 2, 1, 1), np.array([5.0, 12]).reshape(1, 2, 1, 1)]
    assert oracle_rippel.score(levels, gaussians) == pytest.approx([5 + 13])


@pytest.mark.parametrize(
    ("reduction", "variance", "expected"),
    [("none", 0.97, [0, 1, 2, 3]), ("pca", 0.97, [0, 1, 2]), ("npca", 0.97, [1, 2, 3]), ("npca", 0.5, [0, 1, 2, 3])],
)
def test_rippel_keeps_components_by_variance(
    reduction: oracle_rippel.Reduction, variance: float, expected: list[int]
) -> None:
    level = axes([sqrt(80), sqrt(15), 2, 1])  # cumulated shares 0.80, 0.95, 0.99, 1
    components = oracle_rippel.fit([level], reduction, variance)[0].components
    assert np.abs(components) == pytest.approx(np.eye(4)[expected])


def test_rippel_leaves_out_components_without_variance() -> None:
    level = axes([sqrt(80), sqrt(15), 2, 1, 0])
    assert len(oracle_rippel.fit([level], "npca", 0.97)[0].components) == 3


def test_rippel_distance_does_not_depend_on_the_basis() -> None:
    level, test = RANDOM.normal(size=(20, 5, 2, 2)), RANDOM.normal(size=(3, 5, 2, 2))
    rotation = np.linalg.qr(RANDOM.normal(size=(5, 5)))[0]
    turned, turned_test = (np.einsum("dc,nchw->ndhw", rotation, each) for each in (level, test))
    for reduction in ("none", "pca", "npca"):
        expected = oracle_rippel.score([test], oracle_rippel.fit([level], reduction, 0.8))
        assert oracle_rippel.score([turned_test], oracle_rippel.fit([turned], reduction, 0.8)) == pytest.approx(
            expected
        )


def test_rippel_threshold_is_the_root_of_chi_square() -> None:
    gaussian = oracle_rippel.Gaussian(np.zeros(2), np.ones(2), np.eye(2), np.eye(2))
    assert oracle_rippel.threshold(gaussian, 1 - exp(-2)) == pytest.approx(2)  # of two dimensions: exp(-t t / 2)
    assert oracle_rippel.within_sigmas(3) == pytest.approx(0.9973, abs=1e-5)


def test_rippel_baselines() -> None:
    level = axes([2, 1])
    gaussian = oracle_rippel.fit([level])[0]
    test = np.array([7.0 + 3, 7 + 4]).reshape(1, 2, 1, 1)
    assert gaussian.deviation == pytest.approx([sqrt(8 / 3), sqrt(2 / 3)])
    assert oracle_rippel.l2_distances(test, gaussian) == pytest.approx([5])
    assert oracle_rippel.l2_distances(test, gaussian, per_channel=True) == pytest.approx([5 / sqrt(2)])
    assert oracle_rippel.sed_distances(test, gaussian) == pytest.approx([sqrt(9 * 3 / 8 + 16 * 3 / 2)])


def test_patchcore_reads_zeros_beyond_the_border() -> None:
    embedding = oracle_patchcore.embed([np.ones((1, 1, 3, 3))], size=3)[0, 0]
    assert embedding * 9 == pytest.approx(np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]]))


def test_patchcore_aggregates_each_level_on_its_own_grid() -> None:
    fine, coarse = np.zeros((1, 1, 8, 8)), np.zeros((1, 1, 4, 4))
    coarse[0, 0, 0, 0] = 9
    embedding = oracle_patchcore.embed([fine, coarse], size=3)[0, 1]
    assert embedding[:, 0] == pytest.approx([1, 1, 1, 0.75, 0.25, 0, 0, 0])


def test_patchcore_stride_keeps_every_second_position_of_each_level() -> None:
    level = np.arange(16.0).reshape(1, 1, 4, 4)
    assert oracle_patchcore.embed([level], size=1, stride=2)[0, 0].tolist() == [[0, 2], [8, 10]]


def test_patchcore_pools_values_into_overlapping_bins() -> None:
    values = np.arange(1.0, 6).reshape(1, 5, 1, 1)
    assert oracle_patchcore.adaptive_average(values, 2).ravel().tolist() == [2, 4]
    levels = [RANDOM.normal(size=(2, 4, 4, 4)), RANDOM.normal(size=(2, 6, 2, 2))]
    assert oracle_patchcore.embed(levels, dimension=5, target=3).shape == (2, 3, 4, 4)


def test_patchcore_coreset_of_points_on_a_line() -> None:
    bank = np.array([[0.0, 0], [1, 50], [5, 0], [10, 0]])
    along = np.array([[1.0], [0]])
    assert oracle_patchcore.coreset(bank, 4, start=0, projection=along) == [0, 3, 2, 1]
    assert oracle_patchcore.coreset(bank, 2, start=0) == [0, 1]
    assert oracle_patchcore.first_patch(bank) == 1


def test_patchcore_weight_of_the_largest_distance() -> None:
    bank = np.array([[0.0], [-1.2], [2.5]])  # nearest to 0 is -1.2, which is not what is second nearest to 1
    embedding = np.array([[[[1.0, 0.5]]]])
    assert oracle_patchcore.distance_map(embedding, bank).tolist() == [[[1, 0.5]]]
    assert oracle_patchcore.image_score(embedding, bank, neighbours=2) == pytest.approx([1 - e / (e + exp(2.2))])
    assert oracle_patchcore.image_score(embedding, bank, neighbours=1) == [0]
    distant = oracle_patchcore.image_score(embedding * 1e6, bank, neighbours=2)
    assert distant == pytest.approx([(1e6 - 2.5) * (1 - 1 / (1 + exp(2.5)))])


def test_patchcore_segmentation_of_an_even_map() -> None:
    assert oracle_patchcore.segmentation(np.full((2, 2, 2), 5.0), (20, 24)) == pytest.approx(np.full((2, 20, 24), 5))


def test_padim_copies_coarse_cells() -> None:
    fine, coarse = np.zeros((1, 2, 4, 4)), np.array([[[[1.0, 2], [3, 4]]]])
    embedding = oracle_padim.embed([fine, coarse], channels=[2, 0])
    assert embedding[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert not embedding[0, 1].any()


def test_padim_distance_at_one_location() -> None:
    good = np.array([1.0, -1]).reshape(2, 1, 1, 1)
    gaussians = oracle_padim.fit(good)
    assert gaussians.covariances.ravel() == pytest.approx([2.01])
    distances = oracle_padim.distance_map(np.full((1, 1, 1, 1), 3.0), gaussians)
    assert distances.ravel() == pytest.approx([3 / sqrt(2.01)])
    assert oracle_padim.image_score(oracle_padim.anomaly_map(distances, (8, 8))) == pytest.approx([3 / sqrt(2.01)])


def test_padim_distances_have_as_many_degrees_of_freedom_as_channels() -> None:
    good = RANDOM.normal(size=(400, 3, 1, 2))
    squares = oracle_padim.distance_map(good, oracle_padim.fit(good, epsilon=0)) ** 2
    assert squares.mean() == pytest.approx(3 * 399 / 400)


def test_patch_svdd_lays_patches_at_multiples_of_the_stride() -> None:
    image = np.zeros((1, 1, 256, 256))
    for side, stride, count in ((64, 16, 13), (32, 4, 57)):
        vectors = oracle_patch_svdd.embed(image, lambda patch: patch[:, 0, 0], side, stride)
        assert vectors.shape == (1, count, count, 1)


def test_patch_svdd_finds_the_nearest_normal_patch_anywhere() -> None:
    normal = np.array([[[[0.0, 0], [3, 4]]], [[[10, 10], [20, 20]]]])
    tested = np.array([[[[3.0, 0], [10, 11]]]])
    assert oracle_patch_svdd.patch_scores(tested, normal).tolist() == [[[3, 1]]]


def test_patch_svdd_pixel_is_the_mean_of_its_patches() -> None:
    scores = np.array([[1.0, 2], [3, 4]])
    expected = [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]
    assert oracle_patch_svdd.pixel_map(scores, (3, 3), side=2, stride=1).tolist() == expected
    apart = oracle_patch_svdd.pixel_map(scores, (5, 5), side=2, stride=2)
    assert apart[:, 0].tolist() == [1, 1, 3, 3, 0]


def test_patch_svdd_multiplies_the_maps_of_both_sizes() -> None:
    product = oracle_patch_svdd.anomaly_map([np.array([[1.0, 2]]), np.array([[3.0, 4]])])
    assert product.tolist() == [[3, 8]]
    assert oracle_patch_svdd.image_score(product) == 8
