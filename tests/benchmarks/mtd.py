"""Magnetic Tile Defects, by the protocol that every number of this project follows.

The sorted good tiles are permuted with ``default_rng(seed)``; the first four fifths calibrate, the others and all
defective tiles are the test.

Most tiles were photographed several times, mostly at six exposures, and lie in the same place each time: by the
protocol a good test tile is one that calibration has seen (``by_tile.py``).
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from calibration.backbones.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.detectors.mean_shift import MeanShift
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.benchmark import Candidate, Run, measured, tasks
from calibration.workstation.evaluation.splits import USUAL_FOLDS, Split, labelled_sets, splits
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import Detector

DATA = Path(__file__).resolve().parents[2] / os.environ.get("SHIFTWATCH_DATA", "../shared/data")
MTD = DATA / "mtd"
WEIGHTS = DATA.parent / "weights"
LITE0 = WEIGHTS / "tf_efficientnet_lite0.safetensors"
MOBILENET = WEIGHTS / "mobilenet_v2_stride16.onnx"
SIDE = 224
THREADS = 2
_NEXT_TILE = 160
BACKBONES = ("filterbank", "lite0", "mobilenet_v2")

# As wide as the tables, which go into README.md.
console = Console(width=150, highlight=False)


def split(seed: int = 0, images: int | None = None) -> Split:
    """The protocol's split; ``images``: number of good tiles to calibrate with; the test stays the same."""
    return splits(labelled_sets(MTD)[0], seeds=seed + 1, folds=USUAL_FOLDS, images=images)[USUAL_FOLDS * seed]


def split_by_tile(seed: int = 0) -> Split:
    """A split in which no tile is both learnt and tested: four fifths of the tiles that have no defect are learnt.

    Pictures of one tile have neighbouring numbers: at distances below 160 their fine structure correlates by 0.6
    (median), at larger ones by 0.1, as that of any two tiles does.
    """
    data = labelled_sets(MTD)[0]
    images = data.test
    by_name = tiles_by_name([image.path.name for image in images])
    tiles = np.array([by_name[image.path.name] for image in images])
    defective = np.array([image.defective for image in images])
    good_tiles = np.setdiff1d(tiles, tiles[defective])
    learnt = np.isin(tiles, np.random.default_rng(seed).permutation(good_tiles)[: 4 * len(good_tiles) // 5])
    return Split(
        data,
        seed,
        None,
        None,
        tuple(image.path for image, is_learnt in zip(images, learnt, strict=True) if is_learnt),
        tuple(image for image, is_learnt in zip(images, learnt, strict=True) if not is_learnt),
    )


def tiles_by_name(names: list[str]) -> dict[str, str]:
    """Which tile each picture shows."""
    number = {name: int(re.findall(r"_num_(\d+)", name)[0]) for name in names}
    ordered = sorted(names, key=lambda name: number[name])
    numbers = np.array([number[name] for name in ordered])
    tiles = np.cumsum(np.diff(numbers, prepend=numbers[0]) >= _NEXT_TILE)
    return dict(zip(ordered, map(str, tiles), strict=True))


def backbone_of(name: str) -> Backbone:
    """One of ``BACKBONES``."""
    if name == "filterbank":
        return filterbank_backbone(SIDE, SIDE)
    if name == "mobilenet_v2":
        return onnx_backbone(MOBILENET, SIDE, SIDE)
    from calibration.workstation.torch_models.timm_backbone import timm_backbone  # noqa: PLC0415 - torch takes seconds and half a GiB to import

    return timm_backbone("tf_efficientnet_lite0", ("blocks.3", "blocks.4"), LITE0, SIDE, SIDE)


def settings_of(detector: Detector | None = None) -> Settings:
    """Defaults, at the size and on the threads that all benchmarks use."""
    return Settings(Preprocess(SIDE, SIDE), detector or MeanShift(), threads=THREADS)


def fit(backbone: Backbone, paths: Sequence[Path], settings: Settings, path: Path) -> Bundle:
    """The pipeline as it is, silent."""
    return calibrate(ImageFiles(str(MTD), paths), backbone, settings, path, lambda _step, _done, _total: None)


def measure(name: str, seed: int, images: int | None, detector: MeanShift) -> Run:
    """Calibrate and evaluate one backbone on one split."""
    candidate = Candidate(backbone_of(name), repr(detector), settings_of(detector))
    (task,) = tasks([split(seed, images)], [candidate])
    return measured(task, None, lambda _share: None)


def table_of(runs: list[Run]) -> Table:
    """The table that README.md shows."""
    table = Table("backbone", "seed", "good", box=box.MARKDOWN)
    for title in ("image AUROC", "pixel AUROC", "detected", "false rejects", "fit s", "network ms", "bundle MB"):
        table.add_column(title, justify="right")
    table.add_column("brightness alone", justify="right")
    for run in runs:
        table.add_row(
            run.backbone.partition(" ")[0],
            str(run.seed),
            str(run.learnt),
            f"{run.image_auroc:.3f}",
            f"{run.pixel_auroc:.3f}",
            f"{run.detection_rate:.1%}",
            f"{run.false_reject_rate:.1%}",
            f"{run.fit_s:.1f}",
            f"{run.network_ms:.1f}",
            f"{run.bundle_mb:.0f}",
            f"{run.brightness_auroc:.3f}",
        )
    return table


def _arguments() -> argparse.Namespace:
    default = MeanShift()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--alpha", type=float, default=default.alpha)
    parser.add_argument("--averaging", type=int, default=default.averaging)
    parser.add_argument("--location", choices=("local", "shared"), default=default.location)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, help="number of good tiles to calibrate with")
    return parser.parse_args()


def main() -> None:
    """Print the table, one line for each backbone and seed."""
    arguments = _arguments()
    detector = MeanShift(arguments.alpha, arguments.averaging, arguments.location)
    runs = [measure(name, seed, arguments.images, detector) for name in arguments.backbones for seed in arguments.seeds]
    promised = Settings(Preprocess(SIDE, SIDE)).false_reject_rate
    console.print(table_of(runs))
    console.print(f"alpha {arguments.alpha}, averaging {arguments.averaging}, {arguments.location}; {THREADS} threads;")
    console.print(f"false rejects at the calibrated threshold, which promises {promised:.0%}")


if __name__ == "__main__":
    main()
