"""``shiftwatch-calibrate``: teach from good images, prove and evaluate what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from calibration import choices
from calibration.auto import chosen
from calibration.bundle import check_golden, open_bundle, refuse_existing
from calibration.dataset import frame_range, good_images, labelled_images, names_in
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.evaluation import evaluate as evaluate_images
from calibration.evaluation import refuse_without_metrics, write_figures, write_scores
from calibration.pipeline import Settings, calibrate
from calibration.plots import write_plots
from calibration.preprocess import Preprocess
from calibration.report import write_report
from calibration.speed import measured_speed
from calibration.summary import describe, print_evaluation, print_written
from calibration.terminal import console, escape, progress_bar, run

app = typer.Typer(
    help="Learn what good parts look like from good images, and build the network that inspects.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_LEARNING = "What to learn from"
_NETWORK = "Backbone"
_METHOD = "Detector"

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
    leave_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of images not to learn from, one a line.", rich_help_panel=_LEARNING),
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
        str | None,
        typer.Option(
            metavar="NAME|FILE.onnx|A+B",
            help="`filterbank` (no weights), a timm name, an ONNX file, or several joined by `+`."
            "  [default: filterbank]",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
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
    detector: Annotated[
        Literal["mean_shift", "padim", "gaussian", "patchcore", "patch_svdd"],
        typer.Option(help="Method; `patch_svdd` trains encoders of its own.", rich_help_panel=_METHOD),
    ] = "mean_shift",
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="0..1|auto",
            help="mean_shift: weight of the pooled covariance; 1: Hermann et al., near 0: PaDiM.  [default: 0.1]",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    averaging: Annotated[
        int | None,
        typer.Option(help="mean_shift: averaged region, in grid cells.  [default: 2]", rich_help_panel=_METHOD),
    ] = None,
    location: Annotated[
        Literal["local", "shared"] | None,
        typer.Option(
            help="mean_shift: `shared` where parts do not sit still.  [default: local]", rich_help_panel=_METHOD
        ),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="padim: channels kept, at random.  [default: 100]", rich_help_panel=_METHOD)
    ] = None,
    components: Annotated[
        Literal["all", "pca", "npca"] | None,
        typer.Option(help="gaussian: components kept.  [default: all]", rich_help_panel=_METHOD),
    ] = None,
    retained_variance: Annotated[
        float | None,
        typer.Option(help="gaussian: variance that pca or npca keeps.  [default: 0.99]", rich_help_panel=_METHOD),
    ] = None,
    coreset: Annotated[
        float | None,
        typer.Option(help="patchcore: share of patches remembered.  [default: 0.01]", rich_help_panel=_METHOD),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="patchcore: b of eq. 7.  [default: 9]", rich_help_panel=_METHOD)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="patch_svdd: of training.  [default: 20]", rich_help_panel=_METHOD)
    ] = None,
    svdd_weight: Annotated[
        float | None,
        typer.Option(help="patch_svdd: weight of the SVDD' loss.  [default: 0.01]", rich_help_panel=_METHOD),
    ] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Choose alpha, averaging, location, brightness and the best of the backbones by synthetic defects.",
            rich_help_panel=_METHOD,
        ),
    ] = False,
    time_budget_s: Annotated[
        float, typer.Option(min=1.0, help="--auto: time for choosing.", rich_help_panel=_METHOD)
    ] = 300.0,
    memory_limit_mib: Annotated[
        int, typer.Option(help="What the statistics may take.", rich_help_panel=_METHOD)
    ] = 4096,
    threads: Threads = 0,
) -> None:
    """Learn from good images and write a bundle.

    For example:

    `shiftwatch-calibrate fit photos/good --out washers`

    `shiftwatch-calibrate fit line3.mp4 --frames 0:400 --roi 320,80,512,512 --out washers`

    `shiftwatch-calibrate fit photos/good --backbone tf_efficientnet_lite0 --stages blocks.3,blocks.4 --out washers`

    `shiftwatch-calibrate fit photos/good --auto --out washers`
    """
    refuse_existing(out)
    given = {
        "alpha": alpha,
        "averaging": averaging,
        "location": location,
        "dimensions": dimensions,
        "components": components,
        "retained_variance": retained_variance,
        "coreset": coreset,
        "neighbours": neighbours,
        "epochs": epochs,
        "svdd_weight": svdd_weight,
    }
    height, width = choices.size(size)
    settings = Settings(
        preprocess=Preprocess(height, width, None if roi is None else choices.region(roi)),
        detector=choices.detector(detector, given),
        divide_brightness=divide_brightness,
        false_reject_rate=false_reject_rate,
        memory_limit_mib=memory_limit_mib,
        threads=threads,
    )
    unwanted = names_in(leave_out) if leave_out else frozenset[str]()
    images = good_images(source, frame_range(frames), unwanted)
    colours = choices.colours("--mean", mean), choices.colours("--std", std)
    named = choices.BackboneChoice(backbone or "filterbank", stages, weights, *colours)
    with progress_bar() as progress:
        if isinstance(settings.detector, PatchSvdd):
            choices.refuse_with_patch_svdd({"backbone": backbone, "stages": stages, "weights": weights, "auto": auto})
            network = choices.encoders(images, settings, settings.detector, out, progress)
        elif auto:
            choices.refuse_with_auto({**given, "divide_brightness": divide_brightness})
            candidates = choices.candidates(named, (height, width))
            network, settings = chosen(images, candidates, settings, time_budget_s, progress)
        else:
            network = choices.backbone(named, (height, width))
        bundle = calibrate(images, network, settings, out, progress)
    choices.checkpoint(out).unlink(missing_ok=True)
    describe(bundle)


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
        name = f"{number} (damaged on purpose)" if number == len(checks) - 1 else str(number)
        table.add_row(name, f"{check.expected:.6g}", f"{check.actual:.6g}", f"{check.deviation:.1e}")
    console.print(table)
    console.print(f"{escape(str(path))}: all files whole, all scores within {bundle.manifest.golden_tolerance:g}")


@app.command()
def evaluate(  # noqa: PLR0913 - one parameter for each option of the command
    path: BundlePath,
    dataset: Annotated[Path, typer.Argument(help="MVTec layout, or one folder a kind of which one is `good`.")],
    *,
    scores: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write the score of every image, as CSV.")
    ] = Path("scores.csv"),
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write all figures, as JSON.")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to draw curves, histograms and the worst mistakes.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Score images whose truth is known.

    Example: `shiftwatch-calibrate evaluate washers photos/labelled --scores washers.csv --plots washers-plots`
    """
    refuse_without_metrics()
    bundle = open_bundle(path)
    images = labelled_images(dataset)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        check_golden(bundle, engine)
        with progress_bar() as progress:
            result = evaluate_images(images, bundle, engine, lambda done, total: progress("scoring", done, total))
        print_evaluation(result, bundle)
        write_scores(scores, result)
        print_written("scores of all images", [scores])
        if json:
            write_figures(json, result, bundle)
            print_written("all figures", [json])
        if plots:
            print_written("plots", write_plots(plots, result, bundle, engine))


@app.command()
def report(
    path: BundlePath,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = Path("report.html"),
    threads: Threads = 0,
) -> None:
    """Write one page, for a browser or a printer, that says what a bundle has learnt and what it promises.

    Example: `shiftwatch-calibrate report washers --out washers.html`
    """
    bundle = open_bundle(path)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        checks = check_golden(bundle, engine)
        speed = measured_speed(bundle, engine)
    write_report(out, bundle, checks, speed)
    print_written("report", [out])


def main() -> None:
    """The command ``shiftwatch-calibrate``."""
    run(app)
