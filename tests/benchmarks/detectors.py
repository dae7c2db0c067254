"""Every detector on every backbone, on magnetic tiles and hazelnuts, with 10, 50 and all good images.

``patch_svdd``, which trains for minutes, only where it is named.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
from rich import box
from rich.table import Table

from calibration.dataset import PictureFiles, labelled_images
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.pictures import pictures_in
from calibration.pipeline import Settings
from calibration.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator

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
OWN_ENCODERS = "patch_svdd"
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
    parser.add_argument("--detectors", nargs="+", choices=[*DETECTORS, OWN_ENCODERS], default=list(DETECTORS))
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
    for backbone_name, detector_name, row in _rows(tiles, arguments):
        figures = (row.evaluation.image_auroc, row.evaluation.pixel_auroc, row.evaluation.region_overlap)
        shown = ("" if figure is None else f"{figure:.3f}" for figure in figures)
        costs = (f"{row.fit_s:.1f}", f"{row.network_ms:.1f}", f"{row.bundle_mb:.1f}")
        table.add_row(backbone_name, detector_name, *shown, *costs)
        brightness = row.evaluation.brightness_auroc
    mtd.console.print(f"{name}, {len(tiles.calibrating)} good images; AUROC of mean brightness alone {brightness:.3f}")
    mtd.console.print(table)


def _rows(tiles: mtd.Split, arguments: argparse.Namespace) -> Iterator[tuple[str, str, mtd.Row]]:
    """Each detector on each backbone; one that trains its own encoders comes once, its training counted as fit."""
    plain = Settings(Preprocess(mtd.SIDE, mtd.SIDE), divide_brightness=arguments.divide_brightness, threads=mtd.THREADS)
    detectors = [name for name in arguments.detectors if name != OWN_ENCODERS]
    for backbone_name in arguments.backbones if detectors else ():
        backbone = backbone_of(backbone_name)
        for name in detectors:
            yield backbone_name, name, mtd.measured(tiles, backbone, replace(plain, detector=DETECTORS[name]))
    if OWN_ENCODERS in arguments.detectors:
        detector = PatchSvdd()
        settings, start_s = replace(plain, detector=detector), time.perf_counter()
        backbone = _trained(tiles, settings, detector)
        training_s = time.perf_counter() - start_s
        row = mtd.measured(tiles, backbone, settings)
        yield "its own", OWN_ENCODERS, replace(row, fit_s=row.fit_s + training_s)


def _trained(tiles: mtd.Split, settings: Settings, detector: PatchSvdd) -> Backbone:
    from calibration.patch_svdd.training import trained_encoders  # noqa: PLC0415 - torch takes seconds to import

    images = PictureFiles(str(mtd.DATA), tiles.calibrating)
    with tempfile.TemporaryDirectory() as folder:
        return trained_encoders(images, settings, detector, Path(folder) / "training.pt", lambda *_: None)


if __name__ == "__main__":
    main()
