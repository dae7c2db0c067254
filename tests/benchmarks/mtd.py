"""Magnetic Tile Defects, by the protocol that every number of this project follows.

The sorted good tiles are permuted with ``default_rng(seed)``; the first four fifths calibrate, the others and all
defective tiles are the test.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from calibration.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.dataset import Labelled, PictureFiles, labelled_images
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.evaluation import Evaluation, evaluate
from calibration.pictures import read_picture
from calibration.pipeline import Settings, calibrate
from calibration.preprocess import Preprocess

if TYPE_CHECKING:
    from calibration.bundle import Bundle

DATA = Path(__file__).resolve().parents[2] / os.environ.get("SHIFTWATCH_DATA", "../shared/data")
MTD = DATA / "mtd"
WEIGHTS = DATA.parent / "weights"
LITE0 = WEIGHTS / "tf_efficientnet_lite0.safetensors"
MOBILENET = WEIGHTS / "mobilenet_v2_stride16.onnx"
SIDE = 224
THREADS = 2
BACKBONES = ("filterbank", "lite0", "mobilenet_v2")
_CALIBRATING_SHARE = 0.8
_TIMED_CALLS = 200

# As wide as the tables, which go into README.md.
console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Split:
    """One division of the tiles."""

    calibrating: list[Path]
    test: list[Labelled]


def split(seed: int = 0, images: int | None = None) -> Split:
    """The protocol's split; ``images`` calibrates with the first so many only, against the same test."""
    good = sorted((MTD / "MT_Free" / "Imgs").glob("*.jpg"))
    order = np.random.default_rng(seed).permutation(len(good))
    count = int(_CALIBRATING_SHARE * len(good))
    calibrating = [good[index] for index in order[:count]]
    held = set(calibrating)
    return Split(calibrating[:images], [image for image in labelled_images(MTD) if image.path not in held])


def backbone_of(name: str) -> Backbone:
    """One of ``BACKBONES``."""
    if name == "filterbank":
        return filterbank_backbone(SIDE, SIDE)
    if name == "mobilenet_v2":
        return onnx_backbone(MOBILENET, SIDE, SIDE)
    from calibration.timm_backbone import timm_backbone  # noqa: PLC0415 - torch takes seconds and half a GiB to import

    return timm_backbone("tf_efficientnet_lite0", ("blocks.3", "blocks.4"), LITE0, SIDE, SIDE)


def settings_of(detector: MeanShift | None = None) -> Settings:
    """Defaults, at the size and on the threads that all benchmarks use."""
    return Settings(Preprocess(SIDE, SIDE), detector or MeanShift(), threads=THREADS)


def fit(backbone: Backbone, paths: list[Path], settings: Settings, path: Path) -> Bundle:
    """The pipeline as it is, silent."""
    return calibrate(PictureFiles(str(MTD), paths), backbone, settings, path, lambda _step, _done, _total: None)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    backbone: str
    seed: int
    images: int
    evaluation: Evaluation
    fit_s: float
    network_ms: float
    bundle_mb: float


def measure(name: str, seed: int, images: int | None, detector: MeanShift) -> Row:
    """Calibrate and evaluate one backbone on one split."""
    return measured(split(seed, images), backbone_of(name), settings_of(detector), seed)


def measured(tiles: Split, backbone: Backbone, settings: Settings, seed: int = 0) -> Row:
    """Calibrate and evaluate."""
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        bundle = fit(backbone, tiles.calibrating, settings, Path(folder) / "bundle")
        fit_s = time.perf_counter() - start_s
        with OnnxRuntimeEngine(bundle.network, THREADS) as engine:
            evaluation = evaluate(tiles.test, bundle, engine, lambda _done, _total: None)
            network_ms = _network_ms(engine, tiles.test[0].path)
        size = sum(file.stat().st_size for file in bundle.path.iterdir())
    return Row(backbone.name, seed, len(tiles.calibrating), evaluation, fit_s, network_ms, size / 1e6)


def _network_ms(engine: OnnxRuntimeEngine, picture: Path) -> float:
    frame = Preprocess(SIDE, SIDE)(read_picture(picture))
    times = []
    for _ in range(_TIMED_CALLS):
        start_s = time.perf_counter()
        engine(frame)
        times.append(time.perf_counter() - start_s)
    return 1e3 * min(times)  # others on the machine only ever add time


def table_of(rows: list[Row]) -> Table:
    """The table that README.md shows."""
    table = Table("backbone", "seed", "good", box=box.MARKDOWN)
    for title in ("image AUROC", "pixel AUROC", "detected", "false rejects", "fit s", "network ms", "bundle MB"):
        table.add_column(title, justify="right")
    table.add_column("brightness alone", justify="right")
    for row in rows:
        result = row.evaluation
        pixel = "" if result.pixel_auroc is None else f"{result.pixel_auroc:.3f}"
        figures = (f"{result.image_auroc:.3f}", pixel, f"{result.detection_rate:.1%}")
        costs = (f"{row.fit_s:.1f}", f"{row.network_ms:.1f}", f"{row.bundle_mb:.0f}")
        rejects = f"{result.false_reject_rate:.1%}"
        head = (row.backbone, str(row.seed), str(row.images))
        table.add_row(*head, *figures, rejects, *costs, f"{result.brightness_auroc:.3f}")
    return table


def _arguments() -> argparse.Namespace:
    default = MeanShift()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--alpha", default=str(default.alpha), help="number, or auto")
    parser.add_argument("--averaging", type=int, default=default.averaging)
    parser.add_argument("--location", choices=("local", "shared"), default=default.location)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, help="calibrate with so many good tiles only")
    return parser.parse_args()


def main() -> None:
    """Print the table, one line for each backbone and seed."""
    arguments = _arguments()
    alpha = None if arguments.alpha == "auto" else float(arguments.alpha)
    detector = MeanShift(alpha, arguments.averaging, arguments.location)
    rows = [measure(name, seed, arguments.images, detector) for name in arguments.backbones for seed in arguments.seeds]
    promised = Settings(Preprocess(SIDE, SIDE)).false_reject_rate
    console.print(table_of(rows))
    console.print(f"alpha {arguments.alpha}, averaging {arguments.averaging}, {arguments.location}; {THREADS} threads;")
    console.print(f"false rejects at the calibrated threshold, which promises {promised:.0%}")


if __name__ == "__main__":
    main()
