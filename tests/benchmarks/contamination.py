"""Defective tiles among the good ones: what they cost, how many are named, and what a person's second look gains."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from rich import box
from rich.table import Table

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.workstation.evaluation.evaluation import evaluate

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone
    from calibration.workstation.labelled_images import Labelled
    from calibration.workstation.settings import Settings

ROUNDS = 3


def main() -> None:
    """One line for each look at the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbone", default="filterbank", choices=mtd.BACKBONES)
    parser.add_argument("--share", type=float, default=0.1, help="of the images that are learnt")
    parser.add_argument("--undivided", action="store_true", help="without dividing by brightness")
    arguments = parser.parse_args()
    division = mtd.split()
    defective = [image for image in division.test if image.defective]
    count = round(arguments.share / (1 - arguments.share) * len(division.learnt))
    planted = {defective[index].path for index in np.random.default_rng(0).permutation(len(defective))[:count]}
    test = [image for image in division.test if image.path not in planted]
    settings = replace(
        mtd.settings_of(), divide_brightness=not arguments.undivided, contamination=min(0.5, arguments.share)
    )
    backbone = mtd.backbone_of(arguments.backbone)
    table = Table("learnt", "defective", "image AUROC", "defective ones named", "images named", box=box.MARKDOWN)
    auroc, _ = _measured(backbone, list(division.learnt), test, settings)
    table.add_row("good ones alone", "0", f"{auroc:.4f}", "", "")
    learnt = sorted([*division.learnt, *planted])
    for number in range(ROUNDS):
        auroc, named = _measured(backbone, learnt, test, settings)
        found = named & planted
        left = planted & set(learnt)
        what = "mixed" if number == 0 else f"without those confirmed in {number} looks"
        table.add_row(
            what, str(len(left)), f"{auroc:.4f}", f"{len(found)} ({len(found) / len(left):.0%})", str(len(named))
        )
        learnt = [path for path in learnt if path not in found]
    mtd.console.print(
        f"{arguments.backbone}, {len(division.learnt)} good tiles, {len(planted)} planted, {len(test)} tested"
    )
    mtd.console.print(table)


def _measured(
    backbone: Backbone, learnt: list[Path], test: list[Labelled], settings: Settings
) -> tuple[float, set[Path]]:
    """Image AUROC, and the images that were named suspicious."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = mtd.fit(backbone, learnt, settings, Path(folder) / "bundle")
        with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
            auroc = evaluate(test, bundle, engine, lambda _done, _total: None).image_auroc
        return auroc, {Path(str(name)) for name in bundle.reference()["suspicious_names"]}


if __name__ == "__main__":
    main()
