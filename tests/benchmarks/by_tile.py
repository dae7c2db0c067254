"""What the protocol of Magnetic Tile Defects does not tell: how well tiles are judged that calibration has never seen.

By the protocol good tiles are divided by chance, but most were photographed at about six exposures: of a good test
tile other pictures were learnt, of a defective one hardly any. A detector that knows single tiles again looks good
then. Here no tile is both learnt and tested.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from rich import box
from rich.table import Table

from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.workstation.evaluation.benchmark import Candidate, measured, tasks
from calibration.workstation.fit.folds import each_alone

if TYPE_CHECKING:
    from calibration.detectors.contract import Detector

DETECTORS: dict[str, Detector] = {
    "mean_shift": MeanShift(),
    "mean_shift, alpha 0.3": MeanShift(alpha=0.3),
    "mean_shift, alpha 1": MeanShift(alpha=1.0),
    "mean_shift, shared": MeanShift(location="shared"),
    "mean_shift, order 1 (mean of places)": MeanShift(pooling_order=1.0),
    "mean_shift, order 32": MeanShift(pooling_order=32.0),
    "padim": Padim(),
    "patchcore": PatchCore(),
    "gaussian": Gaussian(),
}


def rates(name: str, promised: float, seeds: int) -> list[str]:
    """False rejects and detections: each image held out alone, then each tile, then the tiles that are found."""
    backbone, cells = mtd.backbone_of(name), []
    for held_out in ("alone", "tile", "found"):
        measures = []
        for seed in range(seeds):
            split = mtd.split_by_tile(seed)
            tiles = mtd.tiles_by_name([path.name for path in split.learnt])
            part_of = {"alone": each_alone, "tile": lambda name, tiles=tiles: tiles[Path(name).name], "found": None}
            settings = replace(mtd.settings_of(), false_reject_rate=promised, part_of=part_of[held_out])
            (task,) = tasks([split], [Candidate(backbone, "", settings)])
            run = measured(task, None, lambda _share: None)
            measures.append((run.false_reject_rate, run.detection_rate))
        rejected, detected = np.mean(measures, axis=0)
        cells += [f"{rejected:.1%}", f"{detected:.1%}"]
    return cells


def main() -> None:
    """Print two tables: mean image AUROC of the seeds with its standard deviation, and what the threshold does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=mtd.BACKBONES, default=["filterbank", "lite0"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds", action="store_true", help="only what the thresholds do")
    arguments = parser.parse_args()
    if arguments.thresholds:
        mtd.console.print(thresholds(arguments.backbones, arguments.seeds))
        return
    table = Table("detector", box=box.MARKDOWN)
    for name in arguments.backbones:
        table.add_column(f"{name}, other tiles", justify="right")
        table.add_column("protocol", justify="right")
    backbones = [mtd.backbone_of(name) for name in arguments.backbones]
    for label, detector in DETECTORS.items():
        candidates = [Candidate(backbone, label, mtd.settings_of(detector)) for backbone in backbones]
        cells = []
        for candidate in candidates:
            for split in (mtd.split_by_tile, mtd.split):
                planned = tasks([split(seed) for seed in range(arguments.seeds)], [candidate])
                found = [measured(task, None, lambda _share: None).image_auroc for task in planned]
                cells.append(f"{np.mean(found):.3f} ± {np.std(found):.3f}")
        table.add_row(label, *cells)
        mtd.console.print(f"{label}: {cells}")
    mtd.console.print(table)
    mtd.console.print(thresholds(arguments.backbones, arguments.seeds))


def thresholds(names: list[str], seeds: int) -> Table:
    """What the threshold does by how images are held out."""
    table = Table("backbone", "promised", "alone: false rejects", "detected", box=box.MARKDOWN)
    for title in ("tile: false rejects", "detected", "tiles found: false rejects", "detected"):
        table.add_column(title, justify="right")
    for name in names:
        for promised in (0.01, 0.05):
            table.add_row(name, f"{promised:.0%}", *rates(name, promised, seeds))
    return table


if __name__ == "__main__":
    main()
