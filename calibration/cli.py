"""``shiftwatch-calibrate``: teach from good images, prove and evaluate what was learnt."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from calibration.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.bundle import Bundle, check_golden, open_bundle, refuse_existing
from calibration.dataset import frame_range, good_images, labelled_images
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.evaluation import evaluate as evaluate_images
from calibration.evaluation import write_scores
from calibration.pipeline import Settings, calibrate
from calibration.preprocess import Preprocess, Region
from calibration.terminal import console, escape, progress_bar, run

if TYPE_CHECKING:
    from calibration.evaluation import Evaluation

app = typer.Typer(
    help="Learn what good parts look like from good images, and build the network that inspects.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_SHOWN = 5
_LEARNING = "What to learn from"
_NETWORK = "Backbone and detector"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `fit` wrote.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the network; 0: one for each core.")]


@app.command()
def fit(  # noqa: PLR0913 - one parameter for each option of the command
    source: Annotated[
        Path, typer.Argument(help="Folder of pictures of good parts, MVTec layout (train/good is taken), or a video.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")],
    *,
    frames: Annotated[
        str, typer.Option(help="START:STOP:STEP of a video or of the sorted pictures.", rich_help_panel=_LEARNING)
    ] = ":",
    roi: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Region of interest, in frame pixels.", rich_help_panel=_LEARNING),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="HxW", help="Network input, in pixels.", rich_help_panel=_LEARNING)
    ] = "224x224",
    divide_brightness: Annotated[
        bool,
        typer.Option(
            "--divide-brightness", help="Divide each frame by its own mean brightness.", rich_help_panel=_LEARNING
        ),
    ] = False,
    false_reject_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected.", rich_help_panel=_LEARNING)
    ] = 0.01,
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.onnx",
            help="`filterbank` (no weights), any timm name, or an ONNX file.",
            rich_help_panel=_NETWORK,
        ),
    ] = "filterbank",
    stages: Annotated[
        str,
        typer.Option(
            metavar="PATH,...", help="Stages of a timm model, e.g. `blocks.3,blocks.4`.", rich_help_panel=_NETWORK
        ),
    ] = "",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the timm model; else timm downloads.", rich_help_panel=_NETWORK),
    ] = None,
    mean: Annotated[
        str, typer.Option(metavar="R,G,B", help="Of an ONNX backbone: subtracted from 0..1.", rich_help_panel=_NETWORK)
    ] = "0,0,0",
    std: Annotated[
        str, typer.Option(metavar="R,G,B", help="Of an ONNX backbone: divided by.", rich_help_panel=_NETWORK)
    ] = "1,1,1",
    detector: Annotated[Literal["mean_shift"], typer.Option(help="Method.", rich_help_panel=_NETWORK)] = "mean_shift",
    alpha: Annotated[
        str,
        typer.Option(
            metavar="0..1|auto",
            help="Weight of the pooled covariance; 1: Hermann et al., near 0: PaDiM.",
            rich_help_panel=_NETWORK,
        ),
    ] = "0.1",
    averaging: Annotated[
        int, typer.Option(help="Side of the averaging region, in grid cells.", rich_help_panel=_NETWORK)
    ] = 2,
    location: Annotated[
        Literal["local", "shared"],
        typer.Option(help="`shared` where parts do not sit still.", rich_help_panel=_NETWORK),
    ] = "local",
    memory_limit_mib: Annotated[int, typer.Option(help="What the statistics may take.", rich_help_panel=_NETWORK)] = (
        4096
    ),
    threads: Threads = 0,
) -> None:
    """Learn from good images and write a bundle.

    For example:

    `shiftwatch-calibrate fit photos/good --out washers`

    `shiftwatch-calibrate fit line3.mp4 --frames 0:400 --roi 320,80,512,512 --out washers`

    `shiftwatch-calibrate fit photos/good --backbone tf_efficientnet_lite0 --stages blocks.3,blocks.4 --out washers`
    """
    del detector  # one method so far; the option names it so that scripts stay valid
    refuse_existing(out)
    height, width = _size(size)
    settings = Settings(
        preprocess=Preprocess(height, width, None if roi is None else _region(roi)),
        detector=MeanShift(None if alpha == "auto" else _number("--alpha", alpha), averaging, location),
        divide_brightness=divide_brightness,
        false_reject_rate=false_reject_rate,
        memory_limit_mib=memory_limit_mib,
        threads=threads,
    )
    images = good_images(source, frame_range(frames))
    if (weights is not None or stages) and (backbone == "filterbank" or backbone.endswith(".onnx")):
        raise SettingError(
            what=f"--weights and --stages belong to a timm model, not to {backbone}",
            remedy="name one: --backbone NAME --stages PATH,...",
        )
    network = _backbone(backbone, stages, weights, (height, width), (_colours("--mean", mean), _colours("--std", std)))
    with progress_bar() as progress:
        bundle = calibrate(images, network, settings, out, progress)
    _describe(bundle)


@app.command()
def verify(path: BundlePath, threads: Threads = 0) -> None:
    """Check a bundle's files and score its golden frames again.

    Example: `shiftwatch-calibrate verify washers`
    """
    bundle = open_bundle(path)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        checks = check_golden(bundle, engine)
    table = Table("golden frame", "calibrated", f"here ({engine.backend})", "difference")
    for number, check in enumerate(checks):
        table.add_row(str(number), f"{check.expected:.6g}", f"{check.actual:.6g}", f"{check.deviation:.1e}")
    console.print(table)
    console.print(f"{escape(str(path))}: all files whole, all scores within {bundle.manifest.golden_tolerance:g}")


@app.command()
def evaluate(
    path: BundlePath,
    dataset: Annotated[Path, typer.Argument(help="MVTec layout, or one folder a kind of which one is `good`.")],
    scores: Annotated[Path, typer.Option(help="Where to write the score of every image.")] = Path("scores.csv"),
    threads: Threads = 0,
) -> None:
    """Score images whose truth is known.

    Example: `shiftwatch-calibrate evaluate washers photos/labelled --scores washers.csv`
    """
    bundle = open_bundle(path)
    images = labelled_images(dataset)
    with OnnxRuntimeEngine(bundle.network, threads) as engine, progress_bar() as progress:
        check_golden(bundle, engine)
        result = evaluate_images(images, bundle, engine, lambda done, total: progress("scoring", done, total))
    write_scores(scores, result, bundle.manifest.working_point.threshold)
    _print_evaluation(result, bundle)
    console.print(f"scores of all images: {escape(str(scores))}")


def _print_evaluation(result: Evaluation, bundle: Bundle) -> None:
    point = bundle.manifest.working_point
    good = sum(not each.image.defective for each in result.scored)
    table = Table("figure", "value", title=f"{good} good, {len(result.scored) - good} defective images")
    table.add_row("image AUROC", f"{result.image_auroc:.4f}")
    table.add_row("image AUROC of mean brightness alone", f"{result.brightness_auroc:.4f}")
    pixel = "no masks" if result.pixel_auroc is None else f"{result.pixel_auroc:.4f}"
    table.add_row("pixel AUROC", pixel)
    table.add_row("threshold", f"{point.threshold:.6g}")
    low, high = point.interval
    promised = f"promised {point.false_reject_rate:.2%}, 95 % interval {low:.2%} to {high:.2%}"
    table.add_row("false-reject rate", f"{result.false_reject_rate:.2%} ({promised})")
    table.add_row("detection rate", f"{result.detection_rate:.2%}")
    for kind, rate in result.detection_by_kind.items():
        table.add_row(f"  {escape(kind)}", f"{rate:.2%}")
    console.print(table)
    _print_skipped(result.skipped)


def _describe(bundle: Bundle) -> None:
    manifest = bundle.manifest
    point = manifest.working_point
    low, high = point.interval
    table = Table("learnt", "", title=escape(str(bundle.path)))
    table.add_row("good images", str(manifest.images.count))
    table.add_row("backbone", f"{manifest.backbone.name} {','.join(manifest.backbone.stages)}".strip())
    table.add_row("features", f"{manifest.backbone.channels} channels on a {_by(*manifest.backbone.grid)} grid")
    detector = manifest.detector
    chosen = " (from the moments)" if detector.alpha_from_moments else ""
    table.add_row("detector", f"{detector.name}, {detector.location}, alpha {detector.alpha:.3g}{chosen}")
    table.add_row("threshold", f"{point.threshold:.6g} ({point.method})")
    table.add_row("false-reject rate", f"{point.false_reject_rate:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    table.add_row("identity", bundle.identity[:16])
    console.print(table)
    _print_skipped(manifest.images.skipped)
    console.print(f"next: shiftwatch-agent run --config FILE.yaml with [bold]bundle: {escape(str(bundle.path))}[/]")


def _print_skipped(skipped: tuple[str, ...] | list[str]) -> None:
    if skipped:
        console.print(f"[yellow]{len(skipped)} images skipped:[/]")
        for reason in skipped[:_SHOWN]:
            console.print(f"  {escape(reason)}", soft_wrap=True)
        if len(skipped) > _SHOWN:
            console.print(f"  and {len(skipped) - _SHOWN} more")


def _backbone(
    name: str,
    stages: str,
    weights: Path | None,
    size: tuple[int, int],
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]],
) -> Backbone:
    if name == "filterbank":
        return filterbank_backbone(*size)
    if name.endswith(".onnx"):
        if 0.0 in normalisation[1]:
            raise SettingError(
                what="--std has a zero, which nothing can be divided by", remedy="give 1 for no division"
            )
        return onnx_backbone(Path(name), *size, *normalisation)
    try:
        from calibration.timm_backbone import timm_backbone  # noqa: PLC0415 - torch is an extra, and slow to import
    except ImportError as error:
        raise SettingError(
            what=f"the backbone {name} needs torch and timm ({error})",
            remedy="install them: pip install '.[fit]' in the project's folder; or use --backbone filterbank",
        ) from error
    return timm_backbone(name, tuple(filter(None, stages.split(","))), weights, *size)


def _by(height: int, width: int) -> str:
    return f"{height}x{width}"


def _size(text: str) -> tuple[int, int]:
    sides = _numbers("--size", text.lower().replace("x", ","), "HEIGHTxWIDTH or one number, e.g. 224x224")
    if len(sides) not in {1, 2} or any(side < 1 or side % 1 for side in sides):
        raise SettingError(what=f"--size {text} is not a size", remedy="give HEIGHTxWIDTH in pixels, e.g. 224x224")
    return int(sides[0]), int(sides[-1])


def _region(text: str) -> Region:
    numbers = _numbers("--roi", text, "X,Y,WIDTH,HEIGHT in frame pixels")
    if len(numbers) != 4 or any(number % 1 for number in numbers):  # noqa: PLR2004
        raise SettingError(what=f"--roi {text} is not a region", remedy="give X,Y,WIDTH,HEIGHT in frame pixels")
    return Region(*map(int, numbers))


def _colours(option: str, text: str) -> tuple[float, float, float]:
    numbers = _numbers(option, text, "three numbers: R,G,B")
    if len(numbers) != 3:  # noqa: PLR2004
        raise SettingError(what=f"{option} {text} has {len(numbers)} numbers", remedy="give three: R,G,B")
    return numbers[0], numbers[1], numbers[2]


def _number(option: str, text: str) -> float:
    numbers = _numbers(option, text, "a number")
    if len(numbers) != 1:
        raise SettingError(what=f"{option} {text} is {len(numbers)} numbers", remedy="give one, with a decimal point")
    return numbers[0]


def _numbers(option: str, text: str, wanted: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(what=f"{option} {text!r} is not understood", remedy=f"give {wanted}") from error
    if not all(map(isfinite, numbers)):
        raise SettingError(what=f"{option} {text} is not finite", remedy=f"give {wanted}")
    return numbers


def main() -> None:
    """The command ``shiftwatch-calibrate``."""
    run(app)
