"""Every detector on every backbone, on magnetic tiles and hazelnuts, with 10, 50 and all good images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import mtd

from calibration.imaging.preprocess import Preprocess
from calibration.workstation.cli.benchmark_output import print_benchmark
from calibration.workstation.cli.detector_options import parse_detector
from calibration.workstation.evaluation.benchmark import Candidate, Run, benchmark_runs, tasks
from calibration.workstation.evaluation.splits import Split, labelled_sets, splits
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone

DETECTORS = (
    "mean_shift",
    "mean_shift:alpha=1",
    "padim",
    "gaussian",
    "gaussian:components=npca,retained_variance=0.01",
    "patchcore",
)
BACKBONES = ("filterbank", "lite0", "mobilenet_v2", "filterbank+mobilenet_v2", "lite0+filterbank")
SETS = ("mtd", "hazelnut")
IMAGES = (10, 50, 0)


def split_of(name: str, images: int | None) -> Split:
    """The first split of a set: of the tiles that of the protocol."""
    return splits(labelled_sets(mtd.DATA / name)[0], seeds=1, folds=None, images=images)[0]


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
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), help="as `benchmark --detector` takes them")
    parser.add_argument("--images", nargs="+", type=int, default=IMAGES, help="numbers of good images; 0: all")
    parser.add_argument("--divide-brightness", action="store_true", help="divide each frame by its own brightness")
    arguments = parser.parse_args()
    candidates = [
        Candidate(
            backbone,
            text,
            Settings(
                Preprocess(mtd.SIDE, mtd.SIDE),
                parse_detector(text),
                divide_brightness=arguments.divide_brightness,
                threads=mtd.THREADS,
            ),
        )
        for backbone in map(backbone_of, arguments.backbones)
        for text in arguments.detectors
    ]
    for name in arguments.sets:
        for count in arguments.images:
            if count <= len(split_of(name, None).learnt):
                runs: list[Run] = []
                split = split_of(name, count or None)
                benchmark_runs(tasks([split], candidates), runs.append, None, lambda _run, _done: None)
                print_benchmark(runs)


if __name__ == "__main__":
    main()
