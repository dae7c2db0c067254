"""What the detectors should say, from the definitions in the papers: loops, float64, nothing shared with the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tests.calibration.papers import oracle_patch_svdd, oracle_patchcore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.detectors.mean_shift import MeanShift

Float64 = NDArray[np.float64]


def naive_pool(features: NDArray[np.float32], window: int) -> Float64:
    """Mean of each window, one step apart: (d, h, w) to (d, h - window + 1, w - window + 1)."""
    channels, height, width = features.shape
    pooled = np.empty((channels, height - window + 1, width - window + 1))
    for row in range(pooled.shape[1]):
        for column in range(pooled.shape[2]):
            patch = features[:, row : row + window, column : column + window].astype(np.float64)
            pooled[:, row, column] = patch.reshape(channels, -1).mean(axis=1)
    return pooled


@dataclass
class NaiveDistance:
    """Squared Mahalanobis distance to the good parts, at each place its own or one for all.

    Attributes:
        mean: (locations or 1, d).
        sigma: (locations or 1, d, d).
    """

    mean: Float64
    sigma: Float64

    @classmethod
    def of_mean_shift(
        cls, pooled: Float64, detector: MeanShift, alpha: float, shrunk_toward: Float64 | None = None
    ) -> NaiveDistance:
        """Hermann et al. 2022 with the shrinkage of ours, from good (n, d, h, w).

        Args:
            pooled: What is learnt.
            detector: Says how.
            alpha: Weight of the pooled covariance.
            shrunk_toward: Images that the pooled covariance is made of, if not those that are learnt.
        """
        channels = pooled.shape[1]
        flat = pooled.reshape(len(pooled), channels, -1)
        if detector.location == "global":
            alpha = 1.0
        if detector.location == "shared":
            flat, alpha = flat.transpose(0, 2, 1).reshape(-1, channels, 1), 1.0
        means = [flat[:, :, place].mean(axis=0) for place in range(flat.shape[2])]
        covariances = [np.cov(flat[:, :, place], rowvar=False) for place in range(flat.shape[2])]
        target = np.mean(covariances, axis=0)
        if shrunk_toward is not None:
            others = shrunk_toward.reshape(len(shrunk_toward), channels, -1)
            target = np.mean([np.cov(others[:, :, place], rowvar=False) for place in range(others.shape[2])], axis=0)
        variances = np.diag(target).copy()
        target += np.diag(detector.ridge * np.maximum(variances, 1e-3 * variances.mean()))
        return cls(np.array(means), np.array([(1 - alpha) * each + alpha * target for each in covariances]))

    @classmethod
    def of_padim(cls, chosen: Float64) -> NaiveDistance:
        """Defard et al. 2021, eq. 1, from the chosen channels of good images, (n, d, h, w)."""
        flat = chosen.reshape(len(chosen), chosen.shape[1], -1)
        places = range(flat.shape[2])
        means = [flat[:, :, place].mean(axis=0) for place in places]
        sigma = [np.cov(flat[:, :, place], rowvar=False) + 0.01 * np.eye(flat.shape[1]) for place in places]
        return cls(np.array(means), np.array(sigma))

    def score_map(self, reduced: Float64) -> Float64:
        """At each place of (d, h, w)."""
        distances = np.empty(reduced.shape[1:])
        for place, (row, column) in enumerate(np.ndindex(*distances.shape)):
            own = place if len(self.mean) > 1 else 0
            shift = reduced[:, row, column] - self.mean[own]
            distances[row, column] = shift @ np.linalg.solve(self.sigma[own], shift)
        return distances


def generalised_mean(score_map: Float64, order: float) -> float:
    """The order-th root of the mean of the order-th powers; the largest as the order goes to infinity."""
    values = [float(value) for value in score_map.ravel()]
    if order == float("inf"):
        return max(values)
    return float((sum(value**order for value in values) / len(values)) ** (1 / order))


def gaussian_score(
    good: Sequence[Float64],
    tested: Sequence[Float64],
    components: str = "all",
    retained: float = 1.0,
    distance: str = "mahalanobis",
) -> float:
    """Rippel et al. 2021, eqs. 3 and 4: the sum over levels of the distance, with its root.

    Args:
        good: Averaged features of each level, (n, d).
        tested: Of the picture, (d,) each.
        components: ``all``, ``pca`` or ``npca``; these two of the sample covariance, before it is shrunk.
        retained: Share of the variance that these two keep.
        distance: ``mahalanobis``, ``l2`` or ``sed``, the root of the mean square over channels.
    """
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - an extra

    total = 0.0
    for level, vector in zip(good, tested, strict=True):
        mean = level.mean(axis=0)
        learnt, shift = level - mean, vector - mean
        if components != "all":
            kept = principal_components(learnt, components, retained)
            learnt, shift = learnt @ kept.T, kept @ shift
        if distance == "mahalanobis":
            total += np.sqrt(shift @ np.linalg.solve(ledoit_wolf(learnt)[0], shift))
            continue
        scales = [1.0 if distance == "l2" else float(np.std(channel, ddof=1)) for channel in learnt.T]
        total += np.sqrt(np.mean([(each / scale) ** 2 for each, scale in zip(shift, scales, strict=True)]))
    return float(total)


def principal_components(centred: Float64, components: str, retained: float) -> Float64:
    """The first whose variances exceed the share, or the last from the one before the rest is exceeded, (r, d)."""
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[: len(centred) - 1]
    limit = (retained if components == "pca" else 1 - retained) * np.square(lengths).sum()
    number = 0
    while number < len(directions) - 1 and np.square(lengths[: number + 1]).sum() <= limit:
        number += 1
    return directions[: number + 1] if components == "pca" else directions[max(number - 1, 0) :]


def memory_score(bank: Float64, reduced: Float64, neighbours: int) -> tuple[float, Float64]:
    """Roth et al. 2022, eqs. 6 and 7, for one picture.

    Args:
        bank: M, (m, d).
        reduced: Patches of the picture, (d, h, w).
        neighbours: b.
    """
    image = reduced[None]
    score = oracle_patchcore.image_score(image, bank, neighbours)
    return float(score[0]), oracle_patchcore.distance_map(image, bank)[0]


def two_field_score(
    banks: Sequence[Float64], levels: Sequence[Float64], frame: tuple[int, int]
) -> tuple[float, Float64]:
    """Yi and Yoon 2020, section 3.4, for one picture.

    Args:
        banks: Good patches of 32 and of 64 pixels, (m, d) each.
        levels: Features of the picture's patches, every 4 and every 16 pixels, (d, h, w) each.
        frame: Height and width of the picture, in pixels.

    Returns:
        The largest product, and the products at every fourth pixel, between which they do not change.
    """
    maps = []
    for bank, level, side, stride in zip(banks, levels, (32, 64), (4, 16), strict=True):
        scores = oracle_patch_svdd.patch_scores(level.transpose(1, 2, 0)[None], bank[None, None])[0]
        maps.append(oracle_patch_svdd.pixel_map(scores, frame, side, stride))
    product = oracle_patch_svdd.anomaly_map(maps)
    return oracle_patch_svdd.image_score(product), product[::4, ::4]
