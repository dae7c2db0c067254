"""The tables of Rippel et al. 2021 with EfficientNet-Lite0: components, distances and label noise, for all levels.

Features are computed once for each set; AUROC of the images, mean of the seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from rich import box
from rich.table import Table

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.gaussian import Gaussian, GaussianHead, ledoit_wolf
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.fit.extraction import Extraction
from calibration.workstation.torch_models.timm_backbone import timm_backbone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from calibration.workstation.evaluation.splits import Split

    Float64 = NDArray[np.float64]

LEVELS = ("bn1", *(f"blocks.{block}" for block in range(7)), "bn2")
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)
COMPONENTS = {
    "all": Gaussian(),
    "pca 99 %": Gaussian("pca", 0.99),
    "pca 95 %": Gaussian("pca", 0.95),
    "npca 1 %": Gaussian("npca", 0.01),
    "npca 0.1 %": Gaussian("npca", 0.001),
    "npca 0.01 %": Gaussian("npca", 0.0001),
}
DISTANCES = {name: Gaussian(distance=name) for name in ("l2", "sed", "mahalanobis")}
SETS: dict[str, Callable[[int], Split]] = {
    "mtd by protocol": mtd.split,
    "mtd by tile": mtd.split_by_tile,
    "hazelnut": lambda seed: splits(labelled_sets(mtd.DATA / "hazelnut")[0], seeds=seed + 1, folds=5, images=None)[
        5 * seed
    ],
}


class ShrunkFirst(Gaussian):
    """Components of the shrunk covariance, as before: hardly any variance is small after shrinkage."""

    def _whitening(self, vectors: Float64) -> Float64:
        variances, directions = np.linalg.eigh(ledoit_wolf(vectors))
        share = np.cumsum(variances) / variances.sum()
        first, last = 0, len(variances)
        if self.components == "npca":
            last = max(1, int(np.searchsorted(share, self.retained_variance, side="right")))
        elif self.components == "pca":
            first = int(np.searchsorted(share, 1.0 - self.retained_variance, side="right"))
        return np.asarray(directions[:, first:last].T / np.sqrt(variances[first:last])[:, None])


class AveragedFeatures:
    """Averages of all levels, over each image, computed once."""

    def __init__(self, levels: Sequence[str]) -> None:
        settings = mtd.settings_of(Gaussian())
        backbone = timm_backbone("tf_efficientnet_lite0", tuple(levels), mtd.LITE0, mtd.SIDE, mtd.SIDE)
        self._extraction = Extraction.of(backbone, settings)
        self.levels, self.channels = levels, backbone.level_channels
        self._known: dict[Path, NDArray[np.float32]] = {}
        self._engine = OnnxRuntimeEngine(self._extraction.network, mtd.THREADS)
        self._engine.__enter__()

    def of(self, paths: Iterable[Path]) -> NDArray[np.float32]:
        """(n, d, 1, 1)."""
        for path in paths:
            if path not in self._known:
                _, _, (reduced,) = self._extraction.features_of(self._engine, str(path), read_image(path))
                self._known[path] = reduced
        return np.stack([self._known[path] for path in paths])

    def head(self, detector: Gaussian, learnt: Sequence[Path]) -> GaussianHead:
        """Fitted to these images."""
        vectors = self.of(learnt)
        with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder), vectors.shape[1:]) as store:
            for each in vectors:
                store.append(each)
            head = detector.fit(store, Folds([range(len(vectors))]), self.channels).head
        assert isinstance(head, GaussianHead)
        return head

    def aurocs(self, head: GaussianHead, split: Split, left_out: frozenset[Path] = frozenset()) -> Float64:
        """AUROC of each level alone, and of their sum."""
        test = [image for image in split.test if image.path not in left_out]
        vectors = self.of([image.path for image in test])[:, :, 0, 0].astype(np.float64)
        levels = np.split(vectors, np.cumsum(self.channels)[:-1], axis=1)
        pairs = zip(levels, head.means, head.whitenings, strict=True)
        distances = [np.linalg.norm((level - mean) @ whitening.T, axis=1) for level, mean, whitening in pairs]
        defective = np.array([image.defective for image in test])
        scored = (*distances, np.sum(distances, axis=0))
        return np.array([_auroc(scores[defective], scores[~defective]) for scores in scored])


def _auroc(high: Float64, low: Float64) -> float:
    return float(((high[:, None] > low) + 0.5 * (high[:, None] == low)).mean())


def components_table(features: AveragedFeatures, name: str, seeds: int) -> Table:
    """Before and now, with the number of components kept."""
    table = Table(name, "before", "components", "now", "components", box=box.MARKDOWN)
    for label, detector in COMPONENTS.items():
        cells = []
        for kind in (ShrunkFirst, Gaussian):
            found, kept = [], []
            for seed in range(seeds):
                split = SETS[name](seed)
                head = features.head(kind(detector.components, detector.retained_variance), split.learnt)
                found.append(features.aurocs(head, split)[-1])
                kept.append([len(whitening) for whitening in head.whitenings])
            cells += [f"{np.mean(found):.3f}", "+".join(str(round(each)) for each in np.mean(kept, axis=0))]
        table.add_row(label, *cells)
    return table


def distances_table(features: AveragedFeatures, name: str, seeds: int) -> Table:
    """Each level and their sum, by distance."""
    columns = []
    for detector in DISTANCES.values():
        divided = [SETS[name](seed) for seed in range(seeds)]
        columns.append(
            np.mean([features.aurocs(features.head(detector, split.learnt), split) for split in divided], axis=0)
        )
    return _levels_table(name, features.levels, tuple(DISTANCES), columns)


def noise_table(features: AveragedFeatures, name: str, seeds: int) -> Table:
    """Each level and their sum, by the share of the images learnt that are defective.

    All that are ever planted are left out of the test, so that it is the same for each share.
    """
    columns: list[list[Float64]] = [[] for _ in SHARES]
    for seed in range(seeds):
        split = SETS[name](seed)
        defective = [image.path for image in split.test if image.defective]
        shuffled = [defective[index] for index in np.random.default_rng(seed).permutation(len(defective))]
        counts = [round(share / (1 - share) * len(split.learnt)) for share in SHARES]
        for column, count in zip(columns, counts, strict=True):
            head = features.head(Gaussian(), (*split.learnt, *shuffled[:count]))
            column.append(features.aurocs(head, split, frozenset(shuffled[: counts[-1]])))
    titles, means = [f"{share:.0%}" for share in SHARES], [np.mean(each, axis=0) for each in columns]
    return _levels_table(name, features.levels, titles, means)


def _levels_table(name: str, levels: Sequence[str], titles: Sequence[str], columns: Sequence[Float64]) -> Table:
    table = Table(name, *titles, box=box.MARKDOWN)
    for label, values in zip((*levels, "sum"), np.transpose(columns), strict=True):
        table.add_row(label, *(f"{value:.3f}" for value in values))
    return table


TABLES = {"components": components_table, "distances": distances_table, "noise": noise_table}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--levels", nargs="+", default=list(LEVELS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    features = AveragedFeatures(arguments.levels)
    for table in arguments.tables:
        for name in arguments.sets:
            if table != "noise" or name != "hazelnut":  # too few defective ones to plant and to test
                mtd.console.print(TABLES[table](features, name, arguments.seeds))


if __name__ == "__main__":
    main()
