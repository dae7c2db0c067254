"""How settings do on sets that they were not chosen on, one after the other: no set is left to decide alone.

For each set and backbone: image AUROC; what the thresholds for 1 and 5 % find, and how many good test images they
reject; what is found where exactly 1 and 5 % of the good test images are rejected; what synthetic defects say; time of
the network, as a multiple of the bare Lite0 at 224x224. Magnetic tiles and commutators
(ksdd) are divided by part.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import mtd
import numpy as np
from rich import box
from rich.table import Table
from speed import BareBackbone, by_turns, ratio

from agent.demo.conveyor import DEFECTS, REGION, parts
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.statistics.threshold import working_point
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.evaluation import evaluate
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.fit.backbone_choice import BackboneChoice
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import PreprocessRequest, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.region import Region
    from calibration.workstation.evaluation.evaluation import EvaluationResult
    from calibration.workstation.labelled_images import Labelled

RATES = (0.01, 0.05)
BACKBONES = ("filterbank", "lite0", "lite0+filterbank")
_FLANGES, _UNKNOWN_FLANGES, _DEFECT_EVERY = 100, 300, 5
_TUNING_S = 300.0


@dataclass(frozen=True)
class Task:
    """One division of a set; ``part_of`` says which images show the same part, None: all differ."""

    name: str
    learned: Sequence[Path]
    test: Sequence[Labelled]
    part_of: Callable[[str], str | None] | None = None
    region: Region | None = None
    sequential: bool = False


def main() -> None:
    """One line for each set, backbone and way to choose settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", help="names, or the beginnings of names")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--auto", action="store_true", help="with --auto, and not with the defaults")
    parser.add_argument("--alpha", type=float, default=MeanShift().alpha)
    parser.add_argument("--size", type=int, help="side of a square network input instead of the images' aspect")
    arguments = parser.parse_args()
    table = Table("set", "backbone", "size", "AUROC", box=box.MARKDOWN)
    for rate in RATES:
        table.add_column(f"{rate:.0%} promised: found / rejected", justify="right")
    for rate in RATES:
        table.add_column(f"found at {rate:.0%}", justify="right")
    for title in ("synthetic found", "network / bare Lite0"):
        table.add_column(title, justify="right")
    detector, side = MeanShift(alpha=arguments.alpha), arguments.size or mtd.SIDE
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(Path(folder)):
            if arguments.sets and not task.name.startswith(tuple(arguments.sets)):
                continue
            for name in arguments.backbones:
                settings = Settings(
                    Preprocess(side, side, task.region),
                    detector,
                    PreprocessRequest(choose_size=arguments.size is None),
                    part_of=task.part_of,
                    tuning_s=_TUNING_S if arguments.auto else None,
                    threads=mtd.THREADS,
                )
                row = measured(task, name, settings)
                mtd.console.print(*row, sep=" | ", soft_wrap=True)
                table.add_row(*row)
    mtd.console.print(table)


def tasks(folder: Path) -> list[Task]:
    """All sets; drawn parts are written to the folder."""
    by_tile, protocol, ksdd = mtd.split_by_tile(), mtd.split(), _given("ksdd")
    tiles = mtd.tiles_by_name([path.name for path in by_tile.learnt])
    cracks = replace(ksdd, test=[image for image in ksdd.test if image.label != "defect_trainpart"])
    return [
        Task("mtd by tile", by_tile.learnt, by_tile.test, lambda name: tiles[Path(name).name]),
        cracks,
        replace(cracks, name="ksdd, parts kept together", part_of=lambda name: re.findall(r"kos\d+", name)[0]),
        _given("metal_plate"),
        _given("hazelnut"),
        _drawn(folder / "flanges"),
        Task("mtd by protocol", protocol.learnt, protocol.test),
    ]


def _given(name: str) -> Task:
    (split,) = splits(labelled_sets(mtd.DATA / name)[0], seeds=1, folds=None, images=None)
    return Task(name, split.learnt, split.test)


def _drawn(folder: Path) -> Task:
    """Flanges of the demo, by kind of defect."""
    for name in ("train/good", "test/good", *(f"test/{kind}" for kind in DEFECTS)):
        (folder / name).mkdir(parents=True)
    for number, part in enumerate(parts(_FLANGES, seed=1)):
        cv2.imwrite(str(folder / "train" / "good" / f"{number:03}.png"), part.image)
    for number, part in enumerate(parts(_UNKNOWN_FLANGES, seed=2, defect_every=_DEFECT_EVERY)):
        cv2.imwrite(str(folder / "test" / (part.defect or "good") / f"{number:03}.png"), part.image)
    (split,) = splits(labelled_sets(folder)[0], seeds=1, folds=None, images=None)
    return Task("flanges", split.learnt, split.test, region=REGION, sequential=True)


def _choice(name: str) -> BackboneChoice:
    if name == "filterbank":
        return BackboneChoice()
    names = name.replace("lite0", "tf_efficientnet_lite0")
    return BackboneChoice(names, "blocks.3,blocks.4", mtd.LITE0)


def measured(task: Task, name: str, settings: Settings) -> list[str]:
    """The row of one set and backbone."""
    images = ImageFiles(task.name, task.learned, sequential=task.sequential)
    with tempfile.TemporaryDirectory() as folder:
        bundle = calibrate(images, _choice(name), settings, Path(folder) / "bundle", lambda *_: None)
        with OnnxRuntimeEngine(bundle.network, settings.threads) as engine:
            result = evaluate(task.test, bundle, engine, lambda *_: None)
            frame = bundle.golden().frames[0]
            times = by_turns({"network": lambda: engine(frame), "bare": _bare_lite0()}, rounds=10, calls=10)
        preprocess = bundle.manifest.preprocess
        return [
            task.name,
            bundle.manifest.backbone.name.replace("tf_efficientnet_", ""),
            f"{preprocess.height}x{preprocess.width}",
            f"{result.image_auroc:.3f}",
            *_at_promised_rates(bundle, result),
            *_at_observed_rates(result),
            _synthetic(bundle),
            f"{ratio(times, 'network', 'bare'):.2f}",
        ]


def _at_promised_rates(bundle: Bundle, result: EvaluationResult) -> list[str]:
    good, defective = _scores(result)
    known, point = bundle.reference()["good_scores"], bundle.working_point
    thresholds = [working_point(known, rate, point.parts).threshold for rate in RATES]
    return [f"{np.mean(defective > limit):.1%} / {np.mean(good > limit):.1%}" for limit in thresholds]


def _at_observed_rates(result: EvaluationResult) -> list[str]:
    good, defective = _scores(result)
    return [f"{np.mean(defective > np.quantile(good, 1 - rate)):.1%}" for rate in RATES]


def _scores(result: EvaluationResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    good, defective = (np.array([each.score for each in group]) for group in (result.good, result.defective))
    return good, defective


def _synthetic(bundle: Bundle) -> str:
    forecast = bundle.manifest.forecast
    return "" if forecast is None else f"{forecast.largest_found:.0%}"


def _bare_lite0() -> Callable[[], object]:
    bare = BareBackbone(mtd.backbone_of("lite0"))
    image = bare.prepared(np.zeros((mtd.SIDE, mtd.SIDE, 3), np.uint8))
    return lambda: bare(image)


if __name__ == "__main__":
    main()
