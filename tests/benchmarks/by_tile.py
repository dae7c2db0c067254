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
    "mean_shift, alpha 1 (Hermann et al.)": MeanShift(alpha=1.0),
    "mean_shift, shared": MeanShift(location="shared"),
    "mean_shift, order 1 (mean of places)": MeanShift(pooling_order=1.0),
    "mean_shift, order 32": MeanShift(pooling_order=32.0),
    "padim": Padim(),
    "patchcore": PatchCore(),
    "gaussian": Gaussian(),
}


def rates(name: str, seeds: int) -> list[str]:
    """False rejects and detections at the threshold of 1 %: each picture left out alone, then each tile."""
    backbone, cells = mtd.backbone_of(name), []
    for keeps_together in (False, True):
        found = []
        for seed in range(seeds):
            split = mtd.split_by_tile(seed)
            tiles = mtd.tiles_by_name([path.name for path in split.learnt])
            part_of = (lambda name, tiles=tiles: tiles[Path(name).name]) if keeps_together else each_alone
            settings = replace(mtd.settings_of(), part_of=part_of)
            (task,) = tasks([split], [Candidate(backbone, "", settings)])
            run = measured(task, None, lambda _share: None)
            found.append((run.false_reject_rate, run.detection_rate))
        rejected, detected = np.mean(found, axis=0)
        cells += [f"{rejected:.1%}", f"{detected:.1%}"]
    return cells


def main() -> None:
    """Print two tables: mean image AUROC of the seeds with its standard deviation, and what the threshold does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=mtd.BACKBONES, default=["filterbank", "lite0"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
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
    table = Table("backbone", "picture alone: false rejects", "detected", "tile alone", "detected", box=box.MARKDOWN)
    for name in arguments.backbones:
        table.add_row(name, *rates(name, arguments.seeds))
    mtd.console.print(table)


if __name__ == "__main__":
    main()
