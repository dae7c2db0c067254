"""How well synthetic defects predict what is found of real ones, over sets, backbones and thresholds."""

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

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.statistics.forecast import Forecast
from calibration.statistics.threshold import working_point
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.evaluation import evaluate
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.fit.pipeline import calibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calibration.workstation.evaluation.splits import Split

RATES = (0.01, 0.05)
SETS = ("ksdd", "metal_plate", "hazelnut")


@dataclass(frozen=True)
class Prediction:
    """One threshold: what it was forecast to find, of all synthetic defects and of the largest, and what it finds."""

    set: str
    backbone: str
    rate: float
    forecast: float
    largest: float
    found: float
    rejected: float


def main() -> None:
    """One line for each set, backbone and rate; the rank correlations below."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=mtd.BACKBONES, default=["filterbank", "lite0"])
    arguments = parser.parse_args()
    rows = [row for task in _tasks() for name in arguments.backbones for row in _predictions(*task, name)]
    table = Table("set", "backbone", "promised", box=box.MARKDOWN)
    for title in ("forecast, all", "forecast, largest", "really found", "good rejected"):
        table.add_column(title, justify="right")
    for row in rows:
        shares = (row.forecast, row.largest, row.found, row.rejected)
        table.add_row(row.set, row.backbone, f"{row.rate:.0%}", *(f"{share:.0%}" for share in shares))
    mtd.console.print(table)
    found = [row.found for row in rows]
    for title, values in (("all", [row.forecast for row in rows]), ("largest", [row.largest for row in rows])):
        mtd.console.print(
            f"rank correlation of the forecast, {title}, with what is found: {spearman(values, found):.2f}"
        )


def _tasks() -> Iterator[tuple[str, Split, Callable[[str], str | None] | None]]:
    by_tile = mtd.split_by_tile()
    tiles = mtd.tiles_by_name([path.name for path in by_tile.learnt])
    yield "mtd by tile", by_tile, lambda name: tiles[Path(name).name]
    for name in SETS:
        (split,) = splits(labelled_sets(mtd.DATA / name)[0], seeds=1, folds=None, images=None)
        yield name, replace(split, test=tuple(image for image in split.test if image.label != "defect_trainpart")), None


def _predictions(
    name: str, split: Split, part_of: Callable[[str], str | None] | None, backbone: str
) -> Iterator[Prediction]:
    settings = replace(mtd.settings_of(), part_of=part_of)
    with tempfile.TemporaryDirectory() as folder:
        images = ImageFiles(name, split.learnt)
        bundle = calibrate(images, mtd.backbone_of(backbone), settings, Path(folder) / "bundle", lambda *_: None)
        with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
            result = evaluate(split.test, bundle, engine, lambda *_: None)
        reference, parts = bundle.reference(), bundle.working_point.parts
    for rate in RATES:
        point = working_point(reference["good_scores"], rate, parts)
        forecast = Forecast.of(reference, point)
        found, rejected = (
            float(np.mean([each.score > point.threshold for each in group]))
            for group in (result.defective, result.good)
        )
        yield Prediction(name, backbone, rate, forecast.found(), forecast.largest_found, found, rejected)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    ranks = [[np.mean(np.flatnonzero(np.sort(values) == value)) for value in values] for values in (one, other)]
    return float(np.corrcoef(np.array(ranks)).min())


if __name__ == "__main__":
    main()
