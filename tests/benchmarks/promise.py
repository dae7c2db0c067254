"""Is the promised false-reject rate kept? Random splits of the good magnetic tiles, several rates."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import mtd
import numpy as np
from rich import box
from rich.table import Table
from threadpoolctl import threadpool_limits

from calibration.detectors.contract import Folds
from calibration.detectors.cross_validation import FOLDS
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network, reduced_shape
from calibration.statistics.threshold import expected_share_above, working_point

RATES = (0.05, 0.01, 0.005)


def main() -> None:
    """Features once, then a fit for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbone", default="filterbank", choices=mtd.BACKBONES)
    parser.add_argument("--splits", type=int, default=20)
    arguments = parser.parse_args()
    backbone, detector = mtd.backbone_of(arguments.backbone), MeanShift()
    extractor = feature_network(backbone, detector, divide_brightness=False)
    paths = sorted((mtd.MTD / "MT_Free" / "Imgs").glob("*.jpg"))
    preprocess = Preprocess(mtd.SIDE, mtd.SIDE)
    kept = dict.fromkeys(RATES, 0)
    observed: dict[float, list[float]] = {rate: [] for rate in RATES}
    with (
        threadpool_limits(1, "blas"),
        tempfile.TemporaryDirectory() as folder,
        FeatureStore(Path(folder), reduced_shape(extractor)) as store,
    ):
        with OnnxRuntimeEngine(extractor.SerializeToString(), mtd.THREADS) as engine:
            for path in paths:
                store.append(engine.reduced(preprocess(read_image(path))))
        for seed in range(arguments.splits):
            order = np.random.default_rng(seed).permutation(len(paths))
            learnt, test = order[: int(0.8 * len(paths))], order[int(0.8 * len(paths)) :].tolist()
            folds = Folds([sorted(part.tolist()) for part in np.array_split(learnt, FOLDS)], independent=True)
            fit = detector.fit(store, folds, backbone.level_channels)
            held_out = [
                np.concatenate([head.scores(batch).score for batch in store.batches(fold)])
                for fold, head in zip(folds.groups, fit.held_out, strict=True)
            ]
            scores = np.concatenate([fit.head.scores(batch).score for batch in store.batches(test)])
            for rate in RATES:
                known = np.concatenate(held_out).astype(np.float64)
                point = working_point(known, rate)
                low, high = expected_share_above(known, point.threshold, len(test))
                share = float((scores > point.threshold).mean())
                observed[rate].append(share)
                kept[rate] += low <= share <= high
    table = Table("promised", "observed, mean", "lowest", "highest", "within the 95 % interval", box=box.MARKDOWN)
    for rate, shares in observed.items():
        figures = (f"{np.mean(shares):.2%}", f"{min(shares):.2%}", f"{max(shares):.2%}")
        table.add_row(f"{rate:.1%}", *figures, f"{kept[rate]} of {len(shares)}")
    mtd.console.print(table)


if __name__ == "__main__":
    main()
