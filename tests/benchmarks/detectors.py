"""Every detector on every backbone, on magnetic tiles and hazelnuts, with 10, 50 and all good images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import mtd
from rich import box
from rich.table import Table

from calibration.dataset import labelled_images
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.pictures import pictures_in
from calibration.pipeline import Settings
from calibration.preprocess import Preprocess

if TYPE_CHECKING:
    from calibration.backbone import Backbone
    from calibration.detectors import Detector

DETECTORS: dict[str, Detector] = {
    "mean_shift": MeanShift(),
    "mean_shift, alpha 1 (Hermann et al.)": MeanShift(alpha=1.0),
    "padim": Padim(),
    "gaussian": Gaussian(),
    "gaussian, npca 0.01": Gaussian("npca", 0.01),
    "patchcore": PatchCore(),
}
BACKBONES = ("filterbank", "lite0", "mobilenet_v2", "filterbank+mobilenet_v2", "lite0+filterbank")
SETS = ("mtd", "hazelnut")
IMAGES = (10, 50, None)


def tiles_of(name: str, images: int | None) -> mtd.Split:
    """Good images to learn from, and labelled ones to test."""
    if name == "mtd":
        return mtd.split(0, images)
    folder = mtd.DATA / name
    return mtd.Split(pictures_in(folder / "train" / "good")[:images], labelled_images(folder))


def backbone_of(name: str) -> Backbone:
    """One, or several joined by ``+``."""
    first, *others = (mtd.backbone_of(part) for part in name.split("+"))
    for other in others:
        first += other
    return first


def main() -> None:
    """Print a table for each set and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--detectors", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--images", nargs="+", type=int, help="numbers of good images; 0: all  (default: 10 50 0)")
    parser.add_argument("--divide-brightness", action="store_true", help="divide each frame by its own brightness")
    arguments = parser.parse_args()
    counts = [count or None for count in arguments.images] if arguments.images else IMAGES
    for name in arguments.sets:
        for count in counts:
            tiles = tiles_of(name, count)
            if count is None or len(tiles.calibrating) == count:
                _print_set(name, tiles, arguments)


def _print_set(name: str, tiles: mtd.Split, arguments: argparse.Namespace) -> None:
    table = Table("backbone", "detector", box=box.MARKDOWN)
    for title in ("image AUROC", "pixel AUROC", "PRO", "fit s", "network ms", "bundle MB"):
        table.add_column(title, justify="right")
    brightness = 0.0
    for backbone_name in arguments.backbones:
        backbone = backbone_of(backbone_name)
        for detector_name in arguments.detectors:
            settings = Settings(
                Preprocess(mtd.SIDE, mtd.SIDE),
                DETECTORS[detector_name],
                divide_brightness=arguments.divide_brightness,
                threads=mtd.THREADS,
            )
            row = mtd.measured(tiles, backbone, settings)
            figures = (row.evaluation.image_auroc, row.evaluation.pixel_auroc, row.evaluation.region_overlap)
            shown = ("" if figure is None else f"{figure:.3f}" for figure in figures)
            costs = (f"{row.fit_s:.1f}", f"{row.network_ms:.1f}", f"{row.bundle_mb:.1f}")
            table.add_row(backbone_name, detector_name, *shown, *costs)
            brightness = row.evaluation.brightness_auroc
    mtd.console.print(f"{name}, {len(tiles.calibrating)} good images; AUROC of mean brightness alone {brightness:.3f}")
    mtd.console.print(table)


if __name__ == "__main__":
    main()
