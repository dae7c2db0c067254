"""``shiftwatch-calibrate benchmark``: settings compared on labelled data sets."""
# No deferred annotations here: typer reads them.

from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.imaging.preprocess import Preprocess
from calibration.terminal import escape, runs_bar, say
from calibration.workstation.cli import parse
from calibration.workstation.cli.benchmark_output import print_benchmark
from calibration.workstation.cli.detector_options import parse_detector
from calibration.workstation.cli.options import (
    Crop,
    DivideBrightness,
    Mean,
    MemoryLimit,
    Std,
    Threads,
    learning,
    method,
    network,
)
from calibration.workstation.cli.output import print_written
from calibration.workstation.evaluation.averages import over_runs, over_sets
from calibration.workstation.evaluation.benchmark import (
    OWN_ENCODERS,
    Candidate,
    Run,
    Task,
    benchmark_runs,
    tasks,
    temporary_folder,
)
from calibration.workstation.evaluation.evaluation import sklearn_metrics
from calibration.workstation.evaluation.labelled_set import LabelledSet
from calibration.workstation.evaluation.run_log import RunFile, refuse_unwritable, write_json
from calibration.workstation.evaluation.splits import USUAL_FOLDS, labelled_sets, splits
from calibration.workstation.fit.backbone_choice import backbone_choices, open_backbone
from calibration.workstation.presets import PRESETS, Preset, preset_of
from calibration.workstation.settings import Settings, least_images

Backbones = Annotated[
    list[str],
    network(
        metavar="NAME|FILE.onnx|A+B",
        help="As for `fit`; repeat to compare.  [default: filterbank, or the preset's]",
    ),
]


def benchmark(  # noqa: PLR0913 - one parameter for each option of the command
    context: typer.Context,
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET",
            help="MVTec AD, VisA, MPDD, BTAD, KolektorSDD, KolektorSDD2 or CIFAR-10 (binary version) as they come, one "
            "category of the first four, MTD, or one folder for each kind, one of them `good`; repeatable.",
        ),
    ],
    *,
    seeds: Annotated[int, learning(min=1, help="Shuffles of the good images.")] = 1,
    folds: Annotated[
        int | None,
        learning(
            min=2,
            help="Parts of the good images, each held out once.  "
            f"[default: {USUAL_FOLDS}; none where train/good and test are given, as by MVTec]",
        ),
    ] = None,
    images: Annotated[
        int | None, learning(min=1, help="Learn from only this many good images, chosen by seed.")
    ] = None,
    size: Annotated[
        str | None,
        learning(metavar="HxW", help="Network input, in pixels, for all sets.  [default: 224x224, or the preset's]"),
    ] = None,
    crop: Crop = None,
    divide_brightness: DivideBrightness = False,
    backbone: Backbones = [],  # noqa: B006 - typer copies it
    stages: Annotated[
        list[str], network(metavar="PATH,...", help="For all timm models; or repeat, one for each.")
    ] = [],  # noqa: B006
    weights: Annotated[list[Path], network(metavar="FILE", help="For all timm models; or repeat, one for each.")] = [],  # noqa: B006
    mean: Mean = "0,0,0",
    std: Std = "1,1,1",
    preset: Annotated[
        list[str], method(metavar="|".join(PRESETS), help="As for `fit`; repeat to compare, beside --detector.")
    ] = [],  # noqa: B006
    detector: Annotated[
        list[str],
        method(
            metavar="NAME[:OPTION=VALUE,...]",
            help="As for `fit`, e.g. `mean_shift:alpha=1`; repeat to compare.  [default: mean_shift, or the presets]",
        ),
    ] = [],  # noqa: B006
    memory_limit_mib: MemoryLimit = 4096,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A row for each run, as it ends; the same command continues from there."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All runs, means, standard errors and software versions.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Compare backbones and detectors on labelled data sets, over folds and seeds.

    A set with train/good and test, such as MVTec's, keeps that division. In any other set, each fold of the good images
    is held out once and tested with all defective ones; fold 0 of seed 0 is the usual 80/20 split.

    For example:

    `shiftwatch-calibrate benchmark mvtec --detector mean_shift --detector padim --csv mvtec.csv`

    `shiftwatch-calibrate benchmark mvtec --preset patchcore2022 --preset padim2021 --detector mean_shift`

    `shiftwatch-calibrate benchmark magnetic-tiles --folds 5 --seeds 2 --images 100`

    `shiftwatch-calibrate benchmark nuts --detector patch_svdd:steps=0 --detector patch_svdd:encoders=raw`
    """
    sklearn_metrics()  # refuses before hours are spent
    if json:
        refuse_unwritable(json)
    given_size = None if size is None else parse.size(size)
    normalisation = parse.colours("--mean", mean), parse.colours("--std", std)
    compared = _compared(detector, preset)
    if backbone:
        named = [
            (choice, label)
            for number, choice in enumerate(backbone_choices(backbone, stages, weights, normalisation))
            for label in compared
            if not (number and isinstance(compared[label].detector, PatchSvdd))  # its encoders are the same for all
        ]
    else:
        own_stages = [each.stages for each in compared.values() if each.stages]
        own = [each.backbone for each in compared.values()]
        named = list(zip(backbone_choices(own, stages or own_stages, weights, normalisation), compared, strict=True))
    unpacked = context.with_resource(temporary_folder(None))
    sets = [data for number, source in enumerate(datasets) for data in labelled_sets(source, unpacked / str(number))]
    least = max(least_images(each.detector) for each in compared.values())
    divided = [split for data in sets for split in splits(data, seeds=seeds, folds=folds, images=images, least=least)]
    opened = cache(open_backbone)
    candidates = [
        Candidate(
            OWN_ENCODERS
            if isinstance(compared[label].detector, PatchSvdd)
            else opened(choice, given_size or compared[label].size),
            label,
            Settings(
                Preprocess(*(given_size or compared[label].size), crop=compared[label].crop if crop is None else crop),
                compared[label].detector,
                divide_brightness=divide_brightness,
                memory_limit_mib=memory_limit_mib,
                threads=threads,
            ),
        )
        for choice, label in named
    ]
    runs = _runs(tasks(divided, candidates), csv)
    print_benchmark(runs)
    _print_given_divisions(sets, seeds, varied=folds is not None or images is not None)
    if csv:
        print_written("runs", [csv])
    if json:
        averages = over_runs(runs)
        write_json(json, runs, [*averages, *over_sets(averages)])
        print_written("runs, means and standard errors", [json])


def _compared(detectors: list[str], presets: list[str]) -> dict[str, Preset]:
    """What is compared, by its name in the tables; a detector without a preset is tried on the filterbank."""
    usual = [] if presets else [MeanShift.name]
    alone = {text: Preset("", parse_detector(text), "filterbank", "") for text in detectors or usual}
    return {**alone, **{name: preset_of(name) for name in presets}}


def _runs(planned: list[Task], csv: Path | None) -> list[Run]:
    """All runs; those in the file are not repeated."""
    file = RunFile(csv, [task.identity for task in planned]) if csv else None
    runs = {run.identity: run for run in file.runs} if file else {}
    waiting = [task for task in planned if task.identity not in runs]
    if runs:
        say(f"{len(runs)} of {len(planned)} runs are in {escape(str(csv))} already")

    def keep(run: Run) -> None:
        if file:
            file.append(run)
        runs[run.identity] = run

    if waiting:
        with runs_bar(len(waiting)) as progress:
            benchmark_runs(waiting, keep, csv.parent if csv else None, progress)
    return [runs[task.identity] for task in planned]


def _print_given_divisions(sets: list[LabelledSet], seeds: int, *, varied: bool) -> None:
    given = [data.name for data in sets if data.divided]
    if given and seeds > 1 and not varied:
        say(
            f"[yellow]one run only:[/] {escape(', '.join(given))} says what to learn from, so that seeds change "
            "nothing; --images or --folds vary it"
        )
