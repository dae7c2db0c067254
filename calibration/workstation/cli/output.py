"""What the commands print at their end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from calibration.plain_text import counted, printable
from calibration.statistics.forecast import LEAST_DETECTION
from calibration.statistics.threshold import CHI_SQUARE, HIGHEST
from calibration.terminal import console, escape, say
from calibration.workstation.cli.forecast_output import print_forecast
from calibration.workstation.cli.suspicious import print_suspicious
from calibration.workstation.report.rows import preprocess_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import AlignmentRecord
    from calibration.workstation.evaluation.evaluation import EvaluationResult

_SHOWN = 5
# Where about five images lie above the threshold, the upper end of the interval is within this factor of the rate.
_TOO_UNCERTAIN, _ENOUGH = 2.5, 5


def describe(bundle: Bundle, least_detection: float = LEAST_DETECTION) -> None:
    """Print what a bundle has learned, after what a person should know about it.

    It is nearly blind if it finds less than ``least_detection`` of the largest synthetic defects.
    """
    manifest = bundle.manifest
    point = manifest.working_point
    low, high = point.interval
    parts = f", from {point.parts} different parts" if point.parts else ""
    table = Table("learned", "", title=escape(str(bundle.path)))
    table.add_row("good images", f"{manifest.images.count} from {escape(manifest.images.source)}")
    if manifest.images.left_out:
        table.add_row("left out", str(len(manifest.images.left_out)))
    for name, text in preprocess_rows(manifest.preprocess, bundle.reference()):
        table.add_row(name.lower(), text)
    table.add_row("backbone", f"{manifest.backbone.name} {','.join(manifest.backbone.stages)}".strip())
    table.add_row(
        "features",
        f"{manifest.backbone.channels} channels on a {manifest.backbone.grid[0]}x{manifest.backbone.grid[1]} grid",
    )
    parameters = ", ".join(f"{name} {value}" for name, value in manifest.detector.parameters.items())
    table.add_row("detector", f"{manifest.detector.name}: {parameters}")
    table.add_row("threshold", f"{point.threshold:.6g} ({point.method})")
    rate = f"{point.false_reject_rate:.2%}{' expected, not promised' if point.method == HIGHEST else ''}"
    if point.chi_square is not None:
        share = float((bundle.reference()["good_scores"] > point.chi_square).mean())
        above = f"{share:.2%} of good images are above it"
        if point.method == CHI_SQUARE:
            rate += f" if features were Gaussian; {above}"
        else:
            table.add_row("chi-square threshold", f"{point.chi_square:.6g}, for comparison: {above}")
    table.add_row("false-reject rate", f"{rate}, 95 % interval {low:.2%} to {high:.2%}{parts}")
    table.add_row("identity", bundle.identity[:16])
    if manifest.choice:
        table.add_row("chosen", manifest.choice.reason)
    for parent in manifest.merge.parents if manifest.merge else ():
        images = f"{counted(parent.images, 'image')} of weight {parent.weight:g} from {', '.join(parent.sources)}"
        table.add_row("merged", f"{parent.identity[:16]}: {escape(images)}")
    _print_warnings(bundle)
    console.print(table)
    print_forecast(bundle, least_detection)
    given = shlex.join([f"bundle={bundle.path}", "camera.source=CAMERA"])
    say(f"next: shiftwatch-agent config {escape(given)} > station.yaml")


def _print_warnings(bundle: Bundle) -> None:
    manifest, point = bundle.manifest, bundle.manifest.working_point
    for finding in manifest.images.findings:
        print_some(escape(finding.what), finding.images)
    print_some("images skipped", manifest.images.skipped)
    print_suspicious(bundle)
    _print_candidates(manifest.detector.parameters)
    _print_alignment(manifest.preprocess.alignment)
    if manifest.merge:
        say(
            f"[yellow]the threshold is an estimate:[/] of {manifest.images.count} good scores under the new statistics "
            f"{manifest.merge.rescored} are known; check it with good parts that it has not learned "
            "(shiftwatch-calibrate evaluate), and set it on the device (shiftwatch-agent command threshold)"
        )
    low, high = point.interval
    if point.method == HIGHEST:
        scored = "a varied copy of it" if manifest.images.count == 1 else "an image that was held out"
        say(
            f"[yellow]no promise:[/] too few images for a false-reject rate ({manifest.images.count}). The threshold "
            f"is the highest score of {scored}; one good part in {manifest.images.count + 1} may be expected above it, "
            f"and up to {high:.0%} may be. Calibrate again with 10 images or more, better a hundred"
        )
    elif low > point.false_reject_rate:
        above = int((bundle.reference()["good_scores"] > point.threshold).sum())
        say(
            f"[yellow]{above} of {manifest.images.count} good images are above the threshold:[/] if parts like these "
            f"are good, {low:.1%} to {high:.1%} of good parts will be rejected"
        )
    elif high > _TOO_UNCERTAIN * point.false_reject_rate:
        needed, shown = round(_ENOUGH / point.false_reject_rate), "different parts" if point.parts else "images"
        say(
            f"[yellow]few {shown} for this rate:[/] up to {high:.1%} of good parts may be rejected; "
            f"{needed:,} {shown} would confirm {point.false_reject_rate:.2%}"
        )


def print_evaluation(result: EvaluationResult, bundle: Bundle) -> None:
    """Print the figures of a bundle on labelled images."""
    folders = {str(Path(source).resolve()) for source in bundle.manifest.sources}
    learned = sum(printable(str(each.image.path.resolve().parent)) in folders for each in result.good)
    good, defective = len(result.good), len(result.defective)
    table = Table("figure", "value", title=f"{good} good, {defective} defective images")
    table.add_row("image AUROC", f"{result.image_auroc:.4f}")
    table.add_row("average precision", f"{result.average_precision:.4f}")
    table.add_row("image AUROC of mean brightness alone", f"{result.brightness_auroc:.4f}")
    table.add_row("pixel AUROC", _figure_of_masks(result.pixel_auroc))
    table.add_row("region overlap (PRO, to 30 %)", _figure_of_masks(result.region_overlap))
    table.add_row("best F1", f"{result.best_f1:.4f} at {result.best_f1_threshold:.6g}")
    table.add_row("false rejects when all are detected", f"{result.false_reject_rate_at_full_detection:.2%}")
    table.add_row("threshold", f"{result.threshold:.6g}", style="bold")
    table.add_row(
        "false-reject rate",
        f"observed {result.false_reject_rate:.2%} of {good}; {_promise(result, bundle)}",
    )
    detected = sum(each.score > result.threshold for each in result.defective)
    table.add_row("detection rate", f"{result.detection_rate:.2%} ({detected} of {defective})")
    for kind, rate in result.detection_by_kind.items():
        table.add_row(f"  {escape(kind)}", f"{rate:.2%}")
    console.print(table)
    print_some("images skipped", result.skipped)
    if learned:
        say(
            f"[bold red]not a fair test:[/] {learned} of the {good} good images lie in a folder that was learned from; "
            "keep some images aside and give those"
        )


def _promise(result: EvaluationResult, bundle: Bundle) -> str:
    low, high = result.expected_false_reject_rate
    if bundle.manifest.working_point.method == HIGHEST:
        return f"nothing promised: too few images ({bundle.manifest.images.count})"
    kept = "kept" if result.promise_kept else "[bold red]NOT kept[/]"
    return f"promised {result.promised_false_reject_rate:.2%}, expected {low:.2%} to {high:.2%}: {kept}"


def print_written(what: str, paths: Sequence[Path]) -> None:
    """Print where the results are."""
    say(f"{what}: {', '.join(escape(str(path)) for path in paths)}")


def print_some(title: str, lines: Sequence[str]) -> None:
    """Print the number of lines under a title, and the first of them."""
    if lines:
        say(f"[yellow]{len(lines)} {title}:[/]")
        for line in lines[:_SHOWN]:
            say(f"  {escape(line)}")
        if len(lines) > _SHOWN:
            console.print(f"  and {len(lines) - _SHOWN} more")


def _print_candidates(parameters: Mapping[str, bool | float | str]) -> None:
    candidates, patches = parameters.get("candidates"), parameters.get("patches")
    if isinstance(candidates, int) and isinstance(patches, int) and candidates < patches:
        say(
            f"[yellow]the memory bank was chosen from {candidates:,} of {patches:,} patches:[/] a higher "
            "--memory-limit-mib takes more of them"
        )


def _print_alignment(record: AlignmentRecord | None) -> None:
    if record is not None and record.least_prominence is None:
        console.print("[yellow]alignment is off:[/] nothing on these parts stands still")
    elif record is not None and record.too_far:
        say(
            f"[yellow]{record.too_far} good parts are off by more than {record.limit_px} pixels:[/] a frame with "
            "such a part will be called moved; raise --align, or leave those images out"
        )


def _figure_of_masks(value: float | None) -> str:
    return "no masks" if value is None else f"{value:.4f}"
