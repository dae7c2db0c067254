"""The command ``shiftwatch-calibrate``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.engine_source import next_to
from calibration.deployment.kept_engines import check_kept_engines
from calibration.deployment.latency import measure_latency
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import EngineError
from calibration.terminal import console, escape, progress_bar, run, say
from calibration.workstation.cli.benchmark import benchmark
from calibration.workstation.cli.build import build
from calibration.workstation.cli.fit import fit
from calibration.workstation.cli.merge import merge
from calibration.workstation.cli.options import BundlePath, Threads
from calibration.workstation.cli.output import print_evaluation, print_written
from calibration.workstation.evaluation.evaluation import evaluate as evaluate_images
from calibration.workstation.evaluation.evaluation import sklearn_metrics, write_figures, write_scores
from calibration.workstation.evaluation.layouts import images_to_score
from calibration.workstation.evaluation.plots import write_plots
from calibration.workstation.report.report import write_report

app = typer.Typer(
    help="Learn from good images what good parts look like, and build the network that inspects.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


app.command()(fit)
app.command()(merge)


@app.command()
def verify(path: BundlePath, threads: Threads = 0) -> None:
    """Check a bundle's files and the engines next to it, and score its golden frames again.

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
    console.print(f"{escape(str(path))}: all files are intact, all scores within {bundle.manifest.golden_tolerance:g}")
    kept = list(check_kept_engines(bundle))
    for each in kept:
        if isinstance(each, str):
            say(escape(each))
    for each in kept:
        if isinstance(each, EngineError):
            raise each


@app.command()
def evaluate(  # noqa: PLR0913 - one parameter for each option of the command
    path: BundlePath,
    dataset: Annotated[Path, typer.Argument(help="MVTec layout, or one folder for each kind, one of them `good`.")],
    *,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write the score of every image.  [default: BUNDLE.scores.csv]"),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write all figures, as JSON.")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to draw curves, histograms and the worst mistakes.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Score labelled images, and measure how well the bundle separates good from defective ones.

    Example: `shiftwatch-calibrate evaluate washers photos/labelled --plots washers-plots`
    """
    sklearn_metrics()  # refuses before any image is scored
    bundle = open_bundle(path)
    images = images_to_score(dataset)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        check_golden(bundle, engine)
        with progress_bar() as progress:
            result = evaluate_images(images, bundle, engine, lambda done, total: progress("scoring", done, total))
        print_evaluation(result, bundle)
        table = scores or next_to(bundle, "scores.csv")
        write_scores(table, result)
        print_written("scores of all images", [table])
        if json:
            write_figures(json, result, bundle)
            print_written("all figures", [json])
        if plots:
            print_written("plots", write_plots(plots, result, bundle, engine))


app.command()(benchmark)


@app.command()
def report(
    path: BundlePath,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page to write.  [default: BUNDLE.report.html]"),
    ] = None,
    threads: Threads = 0,
) -> None:
    """Write a page, for a browser or a printer, on what a bundle has learned and what it promises.

    Example: `shiftwatch-calibrate report washers`
    """
    bundle = open_bundle(path)
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        checks = check_golden(bundle, engine)
        speed = measure_latency(bundle, engine)
    written = out or next_to(bundle, "report.html")
    write_report(written, bundle, checks, speed)
    print_written("report", [written])


app.command()(build)


def main() -> None:
    """The command ``shiftwatch-calibrate``."""
    run(app)
