"""A changed lamp and lens on magnetic tiles: what the old bundle loses, and what a hundred new parts bring back.

Half of the good tiles calibrate. The other half, and all defective tiles, are brightened and blurred; of these good
ones some are collected, and the others tested. A calibration from scratch on the first half, changed alike, is what
relearning is held against.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import mtd
import numpy as np
from rich import box
from rich.table import Table
from sklearn.metrics import roc_auc_score

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import as_bgr8
from calibration.network.fusion import without_head
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.splits import labelled_sets
from calibration.workstation.fit.pipeline import calibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.refit import Mode

CHANGES = {"slight": (0.6, 1.08, 4.0), "strong": (1.0, 1.15, 6.0)}
"""Blur in pixels of the tile (sigma), gain, grey levels more."""
MODES: tuple[Mode, ...] = ("threshold", "mean", "full", "teach")


class Changed(ImageFiles):
    """Tiles as another lamp and lens show them."""

    def __init__(self, paths: list[Path], change: Callable[[Image], Image]) -> None:
        super().__init__("changed tiles", paths)
        self._change = change

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Name and picture."""
        for name, image in super().__iter__():
            yield name, self._change(image)

    def again(self, names: Collection[str]) -> Iterator[tuple[str, Image]]:
        """As ``ImageFiles``."""
        for name, image in super().again(names):
            yield name, self._change(image)


def changed(image: Image, sigma: float, gain: float, more: float) -> Image:
    """Blurred, then brighter."""
    soft = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32)
    return as_bgr8(np.clip(np.rint(soft * gain + more), 0, 255).astype(np.uint8))


def main() -> None:
    """One row for each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbone", default="filterbank", choices=mtd.BACKBONES)
    parser.add_argument("--change", default="slight", choices=CHANGES)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--old-weight", type=float, default=RefitPlan.old_weight)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    tiles = labelled_sets(mtd.MTD)[0]
    good = [sorted(tiles.good)[index] for index in random.permutation(len(tiles.good))]
    defective = [image.path for image in mtd.split().test if image.defective]
    defective = [defective[index] for index in random.permutation(len(defective))]
    first, second = good[: len(good) // 2], good[len(good) // 2 :]
    planted = defective[: round(arguments.parts / 9)]
    test = Test(
        second[arguments.parts :], defective[len(planted) :], lambda tile: changed(tile, *CHANGES[arguments.change])
    )
    table = Table("bundle", "parts", "defective among them", "image AUROC", "left out", "threshold", box=box.MARKDOWN)
    backbone = mtd.backbone_of(arguments.backbone)
    with tempfile.TemporaryDirectory() as folder:
        old = mtd.fit(backbone, first, mtd.settings_of(), Path(folder, "old"))
        unchanged = Test(second[arguments.parts :], defective[len(planted) :], lambda tile: tile)
        row(table, "old, nothing changed", old, unchanged)
        row(table, "old", old, test)
        fresh = calibrate(
            Changed(first, test.change), backbone, mtd.settings_of(), Path(folder, "fresh"), lambda *_: None
        )
        row(table, f"fresh from {len(first)} changed tiles", fresh, test)
        for among in ([], planted):
            collected = [*second[: arguments.parts], *among]
            with (
                OnnxRuntimeEngine(without_head(old.network.read_bytes()), mtd.THREADS) as engine,
                PartStore(Path(folder), engine) as collection,
            ):
                for name, tile in Changed([collected[i] for i in random.permutation(len(collected))], test.change):
                    collection.add(name, old.preprocess(tile))
                for mode in MODES:
                    plan = RefitPlan(mode, arguments.old_weight, sequential=False)
                    path = Path(folder, f"{mode}-{len(among)}")
                    learnt = refit_bundle(old, collection, plan, path, lambda *_: None)
                    row(table, mode, learnt.bundle, test, (len(collection), len(among), len(learnt.left_out)))
    mtd.console.print(f"{arguments.backbone}, {arguments.change} change {CHANGES[arguments.change]}")
    mtd.console.print(table)


class Test:
    """Changed tiles that nobody has learnt."""

    __test__ = False

    def __init__(self, good: list[Path], defective: list[Path], change: Callable[[Image], Image]) -> None:
        self.good = good
        self.defective = defective
        self.change = change

    def auroc(self, bundle: Bundle) -> float:
        """Of a bundle."""
        with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
            scores = [
                np.array([engine(bundle.preprocess(tile)).score for _, tile in Changed(paths, self.change)])
                for paths in (self.good, self.defective)
            ]
        return float(roc_auc_score(np.repeat([0, 1], [len(each) for each in scores]), np.concatenate(scores)))


def row(table: Table, what: str, bundle: Bundle, test: Test, parts: tuple[int, int, int] | None = None) -> None:
    """One line of the table."""
    collected, among, left_out = ("", "", "") if parts is None else (str(each) for each in parts)
    threshold = bundle.manifest.working_point.threshold
    table.add_row(what, collected, among, f"{test.auroc(bundle):.4f}", left_out, f"{threshold:.1f}")


if __name__ == "__main__":
    main()
