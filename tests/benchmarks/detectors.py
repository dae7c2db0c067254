"""Every detector on every backbone, and the papers' presets, on sets of real defects; unknown parts first.

Presets are tried on Lite0, cut where its levels come nearest to those of the paper's network: ImageNet weights of
those networks are not among the data. Size and crop are the paper's; a defect beyond the crop is not seen.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

import mtd

from calibration.detectors.patch_svdd import PatchSvdd
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.cli.benchmark_output import print_benchmark
from calibration.workstation.cli.detector_options import parse_detector
from calibration.workstation.evaluation.benchmark import OWN_ENCODERS, Candidate, Run, benchmark_runs, tasks
from calibration.workstation.evaluation.splits import Split, labelled_sets, splits
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calibration.backbones.backbone import Backbone

DETECTORS = ("mean_shift", "mean_shift:alpha=1", "padim", "gaussian", "patchcore")
BACKBONES = ("filterbank", "lite0", "mobilenet_v2", "filterbank+mobilenet_v2", "lite0+filterbank")
STAGES = {
    "hermann2022": "blocks.3,blocks.4",
    "patchcore2022": "blocks.2,blocks.4",
    "rippel2021": "bn2,blocks.6,blocks.5,blocks.4,blocks.3,blocks.2,blocks.1,blocks.0,bn1",
    "padim2021": "blocks.1,blocks.2,blocks.4",
}
"""Stages of Lite0 for each preset that has a backbone."""
SETS = ("mtd by tile", "ksdd", "metal_plate", "mtd by protocol", "hazelnut")
_MEMORY_MIB = 8192


def split_of(name: str, seed: int, images: int | None) -> Split:
    """A division of the set; of ``mtd by tile`` and of ``ksdd`` no part is both learned from and tested."""
    if name == "mtd by tile":
        split = mtd.split_by_tile(seed)
        return replace(split, learnt=split.learnt[:images])
    if name == "mtd by protocol":
        return mtd.split(seed, images)
    split = splits(labelled_sets(mtd.DATA / name)[0], seeds=seed + 1, folds=None, images=images)[-1]
    return replace(split, test=tuple(image for image in split.test if image.label != "defect_trainpart"))


def backbone_of(name: str) -> Backbone:
    """One, or several joined by ``+``."""
    first, *others = (mtd.backbone_of(part) for part in name.split("+"))
    for other in others:
        first += other
    return first


def candidates_of(backbones: list[str], detectors: list[str], presets: list[str]) -> Iterator[Candidate]:
    """Each detector on each backbone, then the presets on Lite0."""
    for backbone in map(backbone_of, backbones):
        for text in detectors:
            settings = _settings(Settings(Preprocess(mtd.SIDE, mtd.SIDE), parse_detector(text)))
            own = isinstance(settings.detector, PatchSvdd)
            yield Candidate(OWN_ENCODERS if own else backbone, text, settings)
    for name in presets:
        from calibration.workstation.torch_models.timm_backbone import timm_backbone  # noqa: PLC0415 - torch takes seconds

        preset, stages = PRESETS[name], tuple(STAGES[name].split(","))
        lite0 = timm_backbone("tf_efficientnet_lite0", stages, mtd.LITE0, *preset.size)
        yield Candidate(lite0, name, _settings(Settings(Preprocess(*preset.size, crop=preset.crop), preset.detector)))


def _settings(settings: Settings) -> Settings:
    return replace(settings, threads=mtd.THREADS, memory_limit_mib=_MEMORY_MIB)


def main() -> None:
    """Print a table for each set and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--detectors", nargs="*", default=list(DETECTORS), help="as `benchmark --detector` takes them")
    parser.add_argument("--presets", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seeds", type=int, default=1, help="divisions of each set")
    parser.add_argument("--images", nargs="+", type=int, default=[0], help="numbers of good images; 0: all")
    arguments = parser.parse_args()
    candidates = list(candidates_of(arguments.backbones, arguments.detectors, arguments.presets))
    for name in arguments.sets:
        for count in arguments.images:
            runs: list[Run] = []
            for seed in range(arguments.seeds):
                split = split_of(name, seed, count or None)
                benchmark_runs(tasks([split], candidates), runs.append, None, lambda _run, _done: None)
            mtd.console.print(f"{name}, {count or 'all'} good images", style="bold")
            print_benchmark(runs)


if __name__ == "__main__":
    main()
