"""Defective tiles among the good ones: what they cost, and what following the advice of ``fit`` recovers.

Features are computed once; each fit is that of the pipeline on some of them.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from rich import box
from rich.table import Table
from threadpoolctl import threadpool_limits

from calibration.detectors.cross_validation import out_of_fold_scores
from calibration.detectors.damaged_images import DamagedImages
from calibration.detectors.feature_store import FeatureStore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.statistics.threshold import working_point
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit.copies_finding import findings_of_alike
from calibration.workstation.fit.extraction import Extraction, TrainingData
from calibration.workstation.fit.folds import alike_images, held_out_folds
from calibration.workstation.fit.near_copies import fingerprint
from calibration.workstation.fit.review import suspects_among

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.workstation.evaluation.splits import Split
    from calibration.workstation.labelled_images import Labelled
    from calibration.workstation.settings import Settings

    Float32 = NDArray[np.float32]

SPLITS: dict[str, Callable[[], Split]] = {"protocol": mtd.split, "by tile": mtd.split_by_tile}


@dataclass(frozen=True)
class Measured:
    """What one fit came to, and the images that it called suspicious."""

    auroc: float
    detected: float
    rejected: float
    named: frozenset[Path]

    @property
    def cells(self) -> list[str]:
        """For the table."""
        return [f"{self.auroc:.3f}", f"{self.detected:.1%}", f"{self.rejected:.1%}"]


class Tiles:
    """Features and fingerprints of all tiles, with one backbone."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        self._backbone, self._settings = backbone, settings
        extraction = Extraction.of(backbone, settings)
        self._shape = extraction.shape
        self._features: dict[Path, Float32] = {}
        self._fingerprints: dict[Path, Float32] = {}
        with OnnxRuntimeEngine(extraction.network, mtd.THREADS) as engine:
            for image in mtd.split().data.test:
                frame, _, (reduced,) = extraction.features_of(engine, str(image.path), read_image(image.path))
                self._features[image.path], self._fingerprints[image.path] = reduced, fingerprint(frame)

    def measure(self, learnt: Collection[Path], test: Sequence[Labelled], contamination: float) -> Measured:
        """Calibrate and score."""
        paths = sorted(learnt)
        settings = replace(self._settings, contamination=contamination)
        images = ImageFiles(str(mtd.MTD), paths)
        with (
            tempfile.TemporaryDirectory() as folder,
            FeatureStore(Path(folder), self._shape) as store,
            FeatureStore(Path(folder), self._shape) as none,
            threadpool_limits(1, "blas"),
        ):
            for path in paths:
                store.append(self._features[path])
            fingerprints = [self._fingerprints[path] for path in paths]
            data = TrainingData(store, names=list(map(str, paths)), fingerprints=fingerprints)
            alike = alike_images(data, images, settings)
            folds = held_out_folds(data, images, settings, alike)
            fit = settings.detector.fit(store, folds, self._backbone.level_channels)
            good, _ = out_of_fold_scores(store, folds, 1, fit, DamagedImages(none), lambda *_: None)
            point = working_point(good, settings.false_reject_rate, folds.parts)
            _, odd = findings_of_alike(alike, data, good, point, fit, self._backbone, settings, none, lambda *_: None)
            named = frozenset(paths[index] for index in suspects_among(data, odd, settings))
        scores = np.array([float(fit.head.scores(self._features[image.path][None]).score[0]) for image in test])
        defective = np.array([image.defective for image in test])
        high, low = scores[defective], scores[~defective]
        auroc = float((high[:, None] > low).mean())
        return Measured(auroc, float((high > point.threshold).mean()), float((low > point.threshold).mean()), named)


def main() -> None:
    """One line for each fit: without defective images, with them, without all named, without those confirmed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["filterbank", "lite0"], choices=mtd.BACKBONES)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.01, 0.05, 0.1], help="of the images learnt")
    parser.add_argument("--expected", action="store_true", help="with --contamination of the share")
    arguments = parser.parse_args()
    table = Table("backbone", "split", "defective", "calibrated with", "images", box=box.MARKDOWN)
    for title in ("of them defective", "image AUROC", "detected", "false rejects"):
        table.add_column(title, justify="right")
    for backbone in arguments.backbones:
        tiles = Tiles(mtd.backbone_of(backbone), mtd.settings_of())
        for name, split in SPLITS.items():
            for share in arguments.shares:
                for cells in _rows(tiles, split(), share, share if arguments.expected else 0.0):
                    table.add_row(backbone, name, f"{share:.0%}", *cells)
    mtd.console.print(table)


def _rows(tiles: Tiles, division: Split, share: float, contamination: float) -> list[list[str]]:
    defective = [image for image in division.test if image.defective]
    count = round(share / (1 - share) * len(division.learnt))
    planted = {defective[index].path for index in np.random.default_rng(0).permutation(len(defective))[:count]}
    test = [image for image in division.test if image.path not in planted]
    mixed = {*division.learnt, *planted}
    named = tiles.measure(mixed, test, contamination).named
    sets = {
        "good ones alone": set(division.learnt),
        "mixed": mixed,
        "without all that are named": mixed - named,
        "without those named that are defective": mixed - (named & planted),
    }
    return [
        [what, str(len(learnt)), str(len(learnt & planted)), *tiles.measure(learnt, test, contamination).cells]
        for what, learnt in sets.items()
    ]


if __name__ == "__main__":
    main()
