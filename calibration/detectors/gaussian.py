"""Gaussian modelling of deep features (Rippel et al. 2021): one Gaussian per level, on globally averaged features.

It detects defective images but does not locate the defect: its score map has a single location.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from calibration.detectors.contract import Fit
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.chi_square import chi_square_quantile, simulated_threshold
from calibration.statistics.moments import identical_features_error
from calibration.statistics.scores import Scores
from calibration.statistics.shrinkage import shrink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


_NO_VARIANCE = 1e-10  # of the largest: what rounding leaves of none


@dataclass(frozen=True)
class GaussianHead:
    """Sum over levels of the Mahalanobis distance, not squared (eqs. 3 and 4).

    Attributes:
        means: Mean of each level, (d,), float32.
        whitenings: Whitening of each level, (r, d), float32, with r < d if components were left out.
    """

    means: tuple[Float32, ...]
    whitenings: tuple[Float32, ...]

    def scores(self, reduced: Float32) -> Scores:
        """Scores of images, (n, d, 1, 1)."""
        vectors = reduced.reshape(len(reduced), -1)
        total = np.zeros(len(reduced), np.float32)
        levels = _split(vectors, [len(mean) for mean in self.means])
        for level, mean, whitening in zip(levels, self.means, self.whitenings, strict=True):
            total += np.sqrt(np.square((level - mean) @ whitening.T).sum(axis=1))
        return Scores(total, total[:, None, None])

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add a product for each level; the map is the score itself."""
        flat = graph.add("Reshape", reduced.name, graph.ints(0, reduced.shape[0]))
        distances, stop = [], 0
        for number, (mean, whitening) in enumerate(zip(self.means, self.whitenings, strict=True)):
            start, stop = stop, stop + len(mean)
            level = graph.add("Slice", flat, graph.ints(start), graph.ints(stop), graph.ints(1))
            centred = graph.add("Sub", level, graph.constant(f"head.mean.{number}", mean[None]))
            matrix = graph.constant(f"head.whitening.{number}", np.ascontiguousarray(whitening.T))
            whitened = graph.add("MatMul", centred, matrix)
            square = graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(1), keepdims=0)
            distances.append(graph.add("Sqrt", square))
        graph.add("Sum", *distances, output="score")
        graph.add("Reshape", "score", graph.ints(-1, 1, 1), output="map")
        return 1, 1

    def gaussian_threshold(self, share: float) -> float | None:
        """The score that a share exceeds if levels are Gaussian: of one level by eq. 6, of a sum by simulation."""
        if len(self.whitenings) == 1:
            return sqrt(chi_square_quantile(share, len(self.whitenings[0])))
        return simulated_threshold(self._draw, share)

    def _draw(self, random: np.random.Generator, count: int) -> Float64:
        """Scores of independent levels: sums of roots of chi-square."""
        roots = [np.sqrt(random.chisquare(len(whitening), count)) for whitening in self.whitenings]
        return np.asarray(np.sum(roots, axis=0))


@dataclass(frozen=True, slots=True)
class Gaussian:
    """The detector and its parameters.

    Attributes:
        components: ``all``; ``pca`` keeps the principal components of largest variance; ``npca`` (negated) those of
            smallest, which detected defects best in the paper.
        retained_variance: Share of the variance that ``pca`` or ``npca`` keeps, in (0, 1]; see ``kept_components``.
        distance: ``mahalanobis``, or a baseline of the paper: ``l2``, the Euclidean distance to the mean, or ``sed``,
            the same with each channel divided by its standard deviation. Both are divided by the root of the number of
            channels, as in the authors' code, so that levels of many channels do not outweigh the others.

    References:
        Rippel, Mertens, Merhof, "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly
        Detection", 2021: table 1 has the distances, table 3 the components.
    """

    name: ClassVar[str] = "gaussian"
    memory_advice: ClassVar[str] = "fewer --frames"

    components: Literal["all", "pca", "npca"] = "all"
    retained_variance: float = 0.99
    distance: Literal["mahalanobis", "l2", "sed"] = "mahalanobis"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.components not in {"all", "pca", "npca"}:
            raise SettingError(what=f"components = {self.components!r} is not known", remedy="give all, pca or npca")
        if self.distance not in {"mahalanobis", "l2", "sed"}:
            raise SettingError(what=f"distance = {self.distance!r} is not known", remedy="give mahalanobis, l2 or sed")
        if not 0.0 < self.retained_variance <= 1.0:
            raise SettingError(
                what=f"retained_variance = {self.retained_variance} is outside (0, 1]", remedy="give a share, e.g. 0.99"
            )

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Average each level over the image."""
        del features
        means = [graph.add("GlobalAveragePool", level.name) for level in levels]
        return FeatureMap(graph.add("Concat", *means, axis=1), (sum(level.shape[0] for level in levels), 1, 1))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """All averaged features in both precisions and centred, and a covariance being decomposed."""
        channels = reduced[0]
        return (7 * 4 * images * channels + 8 * 8 * channels**2) / 2**20

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit means and whitenings of the levels."""
        held_out = (self._head(store, others, levels) for others in folds.complements())
        head = self._head(store, folds.images, levels)
        threshold = head.gaussian_threshold if self.distance == "mahalanobis" else None
        return Fit(head, held_out, asdict(self), gaussian_threshold=threshold)

    def _head(self, store: Features, images: Sequence[int], lengths: Sequence[int]) -> GaussianHead:
        vectors = np.concatenate([batch.reshape(len(batch), -1) for batch in store.batches(images)]).astype(np.float64)
        means, whitenings = [], []
        for level in _split(vectors, lengths):
            means.append(level.mean(axis=0).astype(np.float32))
            whitenings.append(self._whitening(level).astype(np.float32))
        return GaussianHead(tuple(means), tuple(whitenings))

    def _whitening(self, vectors: Float64) -> Float64:
        """W, (r, d), whose product with a centred vector is as long as its distance to the vectors, (n, d)."""
        if self.components == "all":
            return self._within(vectors)
        basis = kept_components(vectors, self.components, self.retained_variance)
        return self._within(vectors @ basis.T) @ basis

    def _within(self, vectors: Float64) -> Float64:
        channels = vectors.shape[1]
        if self.distance == "mahalanobis":
            return _inverse_root(ledoit_wolf(vectors))
        if self.distance == "l2":
            return np.asarray(np.eye(channels) / np.sqrt(channels))
        return np.asarray(np.diag(_inverse_deviations(vectors)) / np.sqrt(channels))


def kept_components(vectors: Float64, components: Literal["pca", "npca"], share: float) -> Float64:
    """Principal components with the largest or the smallest variances, which together hold a share of it.

    They are those of the sample covariance, without directions that have no variance: those of channels that never
    vary, and of more channels than vectors. As in the authors' code the share is reached, not approached: ``pca`` keeps
    the component that exceeds it, and ``npca``, where the component number k of descending variances exceeds
    1 - share, keeps all from k - 1 on.

    Args:
        vectors: (n, d), two or more.
        components: ``pca`` or ``npca``.
        share: In (0, 1].

    Returns:
        Unit vectors, (r, d).

    Raises:
        DegenerateFeaturesError: The vectors do not vary.
    """
    variances, directions = np.linalg.eigh(np.cov(vectors, rowvar=False).reshape(vectors.shape[1], -1))
    if not variances[-1] > 0.0:
        raise identical_features_error()
    usable = int((variances > _NO_VARIANCE * variances[-1]).sum())
    total = np.cumsum(variances[::-1][:usable])
    exceeding = int(np.searchsorted(total, (share if components == "pca" else 1.0 - share) * total[-1], side="right"))
    kept = slice(exceeding + 1) if components == "pca" else slice(max(exceeding - 1, 0), None)
    basis: Float64 = directions.T[::-1][:usable][kept]
    return basis


def _inverse_root(covariance: Float64) -> Float64:
    """W with W^T W = the inverse."""
    variances, directions = np.linalg.eigh(covariance)
    if variances[0] <= 0.0:
        raise identical_features_error()
    root: Float64 = directions.T / np.sqrt(variances)[:, None]
    return root


def _inverse_deviations(vectors: Float64) -> Float64:
    """One over the standard deviation of each channel; 0 for channels that do not vary in float32."""
    deviations = vectors.std(axis=0, ddof=1)
    varies = deviations > np.finfo(np.float32).eps * np.abs(vectors).max(axis=0)
    if not varies.any():
        raise identical_features_error()
    return np.asarray(np.divide(1.0, deviations, out=np.zeros_like(deviations), where=varies))


def _split(vectors: NDArray[Any], lengths: Sequence[int]) -> list[NDArray[Any]]:
    """The levels of concatenated vectors, (n, d)."""
    return np.split(vectors, np.cumsum(lengths)[:-1], axis=1)


def ledoit_wolf(vectors: Float64) -> Float64:
    """Covariance of vectors, (n, d), shrunk as `shrink` does."""
    centred = vectors - vectors.mean(axis=0)
    covariance: Float64 = centred.T @ centred / len(vectors)
    shrink(covariance, float(np.square(np.square(centred).sum(axis=1)).mean()), len(vectors))
    return covariance
