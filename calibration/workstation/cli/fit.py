"""``shiftwatch-calibrate fit``: options in, bundle out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from calibration.bundle.bundle import refuse_existing
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.imaging.preprocess import Preprocess
from calibration.terminal import progress_bar
from calibration.workstation.cli import components as choices
from calibration.workstation.cli import parse
from calibration.workstation.cli.name_list import names_in, write_names
from calibration.workstation.cli.options import (
    LEARNING,
    METHOD,
    NETWORK,
    DivideBrightness,
    Mean,
    MemoryLimit,
    Size,
    Std,
    Threads,
)
from calibration.workstation.cli.output import describe, print_written
from calibration.workstation.cli.preprocess_options import preprocess_request
from calibration.workstation.dataset import frame_range, good_images
from calibration.workstation.fit.auto_tuning import tune
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.part_groups import part_by
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings


def fit(  # noqa: PLR0913 - one parameter for each option of the command
    source: Annotated[
        Path, typer.Argument(help="Folder of pictures of good parts, MVTec layout (train/good is taken), or a video.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    *,
    frames: Annotated[
        str, typer.Option(help="START:STOP:STEP of a video or of the sorted pictures.", rich_help_panel=LEARNING)
    ] = ":",
    roi: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Region of interest, in frame pixels.", rich_help_panel=LEARNING),
    ] = None,
    align: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS|auto",
            help="Move the region with the part, up to so many frame pixels; auto: 5 % of its shorter side.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    ignore: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|X,Y,W,H",
            help="Never judge this: a picture of the frame's size, white where ignored, or a rectangle; repeatable.",
            rich_help_panel=LEARNING,
        ),
    ] = [],  # noqa: B006 - typer copies it
    leave_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of images not to learn from, one a line.", rich_help_panel=LEARNING),
    ] = None,
    size: Size = "224x224",
    divide_brightness: DivideBrightness = False,
    augment: Annotated[
        int, typer.Option(help="Varied copies of each image to learn, too.", rich_help_panel=LEARNING)
    ] = 0,
    contamination: Annotated[
        float,
        typer.Option(
            help="Share of the images that may be defective: lists the suspicious ones.", rich_help_panel=LEARNING
        ),
    ] = 0.0,
    same_part: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help=r"Pictures whose names agree in this show the same part (`part(\d+)`): left out together.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    suspicious: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write the names of all suspicious images; strike out the good ones for --leave-out.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    false_reject_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.", rich_help_panel=LEARNING)
    ] = 0.01,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.onnx|A+B",
            help="`filterbank` (no weights), a timm name, an ONNX file, or several joined by `+`.  "
            "[default: filterbank]",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    stages: Annotated[
        str,
        typer.Option(
            metavar="PATH,...", help="Stages of a timm model, e.g. `blocks.3,blocks.4`.", rich_help_panel=NETWORK
        ),
    ] = "",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the timm model; else timm downloads.", rich_help_panel=NETWORK),
    ] = None,
    mean: Mean = "0,0,0",
    std: Std = "1,1,1",
    detector: Annotated[
        Literal["mean_shift", "padim", "gaussian", "patchcore", "patch_svdd"],
        typer.Option(help="Method; `patch_svdd` trains encoders of its own.", rich_help_panel=METHOD),
    ] = "mean_shift",
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="0..1",
            help="mean_shift: weight of the pooled covariance; 1: Hermann et al., near 0: PaDiM.  [default: 0.03]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    averaging: Annotated[
        int | None,
        typer.Option(help="mean_shift: averaged region, in grid cells.  [default: 2]", rich_help_panel=METHOD),
    ] = None,
    location: Annotated[
        Literal["local", "shared", "global"] | None,
        typer.Option(
            help="mean_shift: `shared` where parts do not sit still; `global`: one statistic of the whole picture.  "
            "[default: local]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    pooling_order: Annotated[
        float | None,
        typer.Option(
            metavar="1..inf",
            help="mean_shift: of the generalised mean over places that makes the score; inf: the largest.  "
            "[default: 8]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            help="mean_shift: side of the patch of grid cells joined into one vector.  [default: 1]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    modes: Annotated[
        int | None,
        typer.Option(
            help="mean_shift: means per place, for several kinds of good parts.  [default: 1]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            help="mean_shift: random directions kept.  [default: all]  padim: random channels kept.  [default: 100]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    components: Annotated[
        Literal["all", "pca", "npca"] | None,
        typer.Option(help="gaussian: components kept.  [default: all]", rich_help_panel=METHOD),
    ] = None,
    retained_variance: Annotated[
        float | None,
        typer.Option(help="gaussian: variance that pca or npca keeps.  [default: 0.99]", rich_help_panel=METHOD),
    ] = None,
    coreset: Annotated[
        float | None,
        typer.Option(help="patchcore: share of patches remembered.  [default: 0.01]", rich_help_panel=METHOD),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="patchcore: b of eq. 7.  [default: 9]", rich_help_panel=METHOD)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="patch_svdd: of training.  [default: 20]", rich_help_panel=METHOD)
    ] = None,
    svdd_weight: Annotated[
        float | None,
        typer.Option(help="patch_svdd: weight of the SVDD' loss.  [default: 0.001]", rich_help_panel=METHOD),
    ] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Choose detector, alpha, averaging, location, brightness, and of the backbones and stages named the "
            "best, by synthetic defects.",
            rich_help_panel=METHOD,
        ),
    ] = False,
    time_budget_s: Annotated[
        float, typer.Option(min=1.0, help="--auto: time for choosing.", rich_help_panel=METHOD)
    ] = 300.0,
    memory_limit_mib: MemoryLimit = 4096,
    threads: Threads = 0,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Read pictures and compute features on a Dask cluster that sees them under the same paths: "
            "`tcp://HOST:PORT`, or `local:N` for N processes here.",
        ),
    ] = None,
) -> None:
    """Learn from good images and write a bundle.

    For example:

    `shiftwatch-calibrate fit photos/good --out washers`

    `shiftwatch-calibrate fit line3.mp4 --frames 0:400 --roi 320,80,512,512 --out washers`

    `shiftwatch-calibrate fit photos/good --backbone tf_efficientnet_lite0 --stages blocks.3,blocks.4 --out washers`

    `shiftwatch-calibrate fit photos/good --auto --out washers`

    `shiftwatch-calibrate fit photos/good --roi 320,80,512,512 --align auto --ignore label.png --out washers`
    """
    refuse_existing(out)
    given = {
        "alpha": alpha,
        "averaging": averaging,
        "location": location,
        "pooling_order": pooling_order,
        "patch": patch,
        "modes": modes,
        "dimensions": dimensions,
        "components": components,
        "retained_variance": retained_variance,
        "coreset": coreset,
        "neighbours": neighbours,
        "epochs": epochs,
        "svdd_weight": svdd_weight,
    }
    learning = preprocess_request(align, ignore)
    height, width = parse.size(size)
    settings = Settings(
        preprocess=Preprocess(height, width, None if roi is None else parse.region(roi)),
        detector=choices.detector(detector, given),
        divide_brightness=divide_brightness,
        augment=augment,
        contamination=contamination,
        part_of=None if same_part is None else part_by(same_part),
        false_reject_rate=false_reject_rate,
        memory_limit_mib=memory_limit_mib,
        threads=threads,
    )
    unwanted = names_in(leave_out) if leave_out else frozenset[str]()
    images = good_images(source, frame_range(frames), unwanted)
    colours = parse.colours("--mean", mean), parse.colours("--std", std)
    named = choices.BackboneChoice(backbone or "filterbank", stages, weights, *colours)
    with choices.gathering(dask) as gather, progress_bar() as progress:
        settings = replace(settings, preprocess=learn_preprocess(images, settings.preprocess, learning, progress))
        if isinstance(settings.detector, PatchSvdd):
            choices.refuse_with_patch_svdd(
                {"backbone": backbone, "stages": stages, "weights": weights, "auto": auto, "dask": dask}
            )
            network = choices.encoders(images, settings, settings.detector, out, progress)
        elif auto:
            choices.refuse_with_auto(
                {**given, "divide_brightness": divide_brightness, "detector": detector != MeanShift.name}
            )
            candidates = choices.candidates(named, (height, width))
            network, settings = tune(images, candidates, settings, time_budget_s, progress)
        else:
            network = choices.backbone(named, (height, width))
        bundle = calibrate(images, network, settings, out, progress, gather)
    if isinstance(settings.detector, PatchSvdd):
        choices.checkpoint(out).unlink(missing_ok=True)
    describe(bundle)
    if suspicious:
        write_names(suspicious, [str(name) for name in bundle.reference()["suspicious_names"]])
        print_written("suspicious images, the highest score first", [suspicious])
