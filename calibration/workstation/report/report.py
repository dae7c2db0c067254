"""A report for quality engineers: what a bundle has learned, what it promises, and which images to review."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import BundleError
from calibration.imaging.heatmap import display_threshold, overlay
from calibration.imaging.score_map import cover_region, map_threshold
from calibration.plain_text import counted, rounded
from calibration.statistics.threshold import CHI_SQUARE, HIGHEST
from calibration.workstation.output_files import accessible
from calibration.workstation.report.facts import checks_of, identity_of, learned_from, machine_of, method_of, when_of
from calibration.workstation.report.forecast import forecast_of
from calibration.workstation.report.histogram import HistogramMark, histogram
from calibration.workstation.report.html import SPACE, enlarged, img, number, one_in, page, percent, section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle, GoldenCheck
    from calibration.deployment.latency import Latency
    from calibration.statistics.threshold import WorkingPoint
_BY_METHOD = {CHI_SQUARE: "if features were Gaussian", HIGHEST: "expected, not promised"}


def write_report(path: Path, bundle: Bundle, checks: Sequence[GoldenCheck], speed: Latency) -> None:
    """Write the page, replacing an older one.

    Raises:
        BundleError: The bundle is older than reports.
        StorageError: Not writable.
    """
    content = report_page(bundle, checks, speed)
    with accessible(path, "--out FILE"):
        path.write_text(content, encoding="utf-8", errors="replace")


def report_page(bundle: Bundle, checks: Sequence[GoldenCheck], speed: Latency) -> str:
    """The page, as HTML; ``checks`` and ``speed`` are those of this machine.

    Raises:
        BundleError: The bundle is older than reports.
    """
    reference = bundle.reference()
    if "highest_frames" not in reference:
        raise BundleError(
            what=f"{bundle.path} was made by older software and lacks the images of a report",
            remedy="calibrate again",
        )
    parts = [
        _header(bundle, reference, speed),
        _promise(bundle, reference["good_scores"]),
        forecast_of(bundle, reference),
        _review(bundle, reference),
        learned_from(bundle, reference),
        checks_of(bundle, reference),
        method_of(bundle),
        machine_of(checks, speed),
        identity_of(bundle),
        "<footer>Written by <code>shiftwatch-calibrate report</code>. It is one file that loads nothing.</footer>",
    ]
    return page(f"{bundle.path.absolute().name}: calibration report", "\n".join(parts))


def _header(bundle: Bundle, reference: dict[str, NDArray[Any]], speed: Latency) -> str:
    images, point = bundle.manifest.images, bundle.working_point
    suspicious = len(reference["suspicious_names"])
    figures = (
        (f"{images.count:,}", "good images learned from", ""),
        (
            one_in(point.false_reject_rate),
            f"good parts rejected, {_BY_METHOD.get(point.method, 'promised')}",
            "",
        ),
        (f"{suspicious:,}", "good images to review", "doubt" if suspicious else ""),
        (f"{rounded(speed.median_ms, 3)}{SPACE}ms", "for each image, on the machine of this report", ""),
    )
    cells = "".join(
        f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for value, name, kind in figures
    )
    return (
        f'<header><p class="kind">Shiftwatch calibration report</p><h1>{escape(bundle.path.absolute().name)}</h1>'
        f'<p class="when">Learned on {when_of(bundle)} from {escape(images.source)}</p>'
        f'<dl class="figures">{cells}</dl></header>'
    )


def _promise(bundle: Bundle, scores: NDArray[np.float64]) -> str:
    point, record = bundle.working_point, bundle.manifest.working_point
    low, high = point.interval
    above = int((scores > point.threshold).sum())
    if above:
        rejects = f"rejects {percent(low)} to {percent(high)}"
        certainty = (
            f"With 95{SPACE}% confidence the true rate is between {one_in(low)} and {one_in(high)} "
            f"({percent(low)} to {percent(high)})."
        )
    elif point.method in {CHI_SQUARE, HIGHEST}:
        rejects = f"rejects at most {percent(high)}"
        certainty = f"With 95{SPACE}% confidence the true rate is at most {percent(high)} ({one_in(high)})."
    else:
        rejects = f"rejects at most {percent(high)}"
        certainty = (
            f"So low a rate cannot be seen in {counted(point.images, 'image', ',')}: the threshold follows from the "
            f"law of their scores. With 95{SPACE}% confidence, they prove a rate of at most {percent(high)} "
            f"({one_in(high)}). To "
            f"measure the rate itself, calibrate with {math.ceil(1 / point.false_reject_rate):,} images or more."
        )
    positive = np.maximum(scores, np.finfo(np.float64).tiny)
    chart = histogram(
        positive,
        f"Scores of {counted(len(scores), 'good image', ',')}; {above} are above the threshold of "
        f"{number(point.threshold)}",
        mark=HistogramMark(point.threshold, f"threshold {number(point.threshold)}", rejects),
        logarithmic=True,
    )
    return section(
        "What it promises",
        f'<p class="promise">{_promised(point, above, len(scores))}</p>',
        f"<p>{escape(certainty)}</p>",
        chart,
        '<p class="axis-title">score (logarithmic), number of images</p>',
        f"<p>A part is rejected when its score is above the threshold of <b>{number(point.threshold)}</b>; "
        f"{above:,} of the {len(scores):,} good images are above it. {_origin_of_scores(bundle)}</p>",
        _chi_square(None if point.method == CHI_SQUARE else record.chi_square, scores),
        '<p class="small">The promise is for parts, light and camera as they were when these images were taken. '
        "How many real defects are found, <code>shiftwatch-calibrate evaluate</code> measures with labelled "
        "images.</p>",
    )


def _promised(point: WorkingPoint, above: int, images: int) -> str:
    if point.method == CHI_SQUARE:
        return (
            f"If features were Gaussian, {one_in(point.false_reject_rate)} good parts would be rejected. "
            f"Of these good images {percent(above / images)} are."
        )
    if point.method == HIGHEST:
        images = round(1 / point.false_reject_rate) - 1
        return (
            f"Too few images to promise a false-reject rate ({images}): the threshold is the highest of their held-out "
            f"scores. If other good parts are alike, {one_in(point.false_reject_rate)} will be rejected."
        )
    return f"Of good parts, about {one_in(point.false_reject_rate)} will be rejected."


def _origin_of_scores(bundle: Bundle) -> str:
    manifest = bundle.manifest
    if manifest.merge is not None:
        return (
            f"<b>The threshold is an estimate</b>: the statistics are those of {len(manifest.merge.parents)} bundles, "
            f"and under them {manifest.merge.rescored} of the scores are known; the others are derived from how these "
            "changed. Check it with good parts that it has not learned."
        )
    folds = manifest.working_point.folds
    turns = f"in {folds} rounds, each holding back a part of the images"
    if folds == manifest.images.count:
        turns = "each image was left out in turn"
    return f"Each was scored like a new part, by statistics that had not seen it ({turns})."


def _chi_square(threshold: float | None, scores: NDArray[np.float64]) -> str:
    if threshold is None:
        return ""
    above = percent(float((scores > threshold).mean()))
    return (
        f'<p class="small">For comparison: if features were Gaussian, the threshold would be {number(threshold)}; '
        f"{above} of these good images lie above it.</p>"
    )


def _review(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    names = [str(name) for name in reference["highest_names"]]
    suspicious = [str(name) for name in reference["suspicious_names"]]
    threshold, grid = bundle.manifest.working_point.threshold, bundle.manifest.backbone.grid
    pairs = "".join(
        _pair(frame, cover_region(score_map, grid), (name, float(score), threshold), suspicious=name in suspicious)
        for frame, score_map, name, score in zip(
            reference["highest_frames"], reference["highest_maps"], names, reference["highest_scores"], strict=True
        )
    )
    return section(
        "Good images to review",
        _suspicion(suspicious),
        f"<p>These {len(names)} good images have the highest scores. Next to each is its heat map; a red outline "
        "marks what is above the threshold.</p>",
        f'<div class="pairs">{pairs}</div>',
    )


def _suspicion(names: list[str]) -> str:
    if not names:
        return "<p>No image stands out: no score is far above the rest.</p>"
    count = "One image stands out" if len(names) == 1 else f"{len(names):,} images stand out"
    listed = escape("\n".join(Path(name).name for name in names))
    return (
        f'<div class="note"><p><b>{count}</b>: the score is far above the rest. Leave out '
        "defective parts and calibrate again, since what is learned as good passes as good: give each name, or a "
        f"file of names, one a line, with <code>--leave-out</code>.</p><pre>{listed}</pre></div>"
    )


def _pair(
    frame: NDArray[np.uint8],
    score_map: NDArray[np.float32],
    caption: tuple[str, float, float],
    *,
    suspicious: bool,
) -> str:
    """An image and its heat map; below the threshold, the heat is relative to the highest score of the image itself."""
    name, score, threshold = caption
    shown = enlarged(frame)
    heat = overlay(shown, None, score_map, display_threshold(score_map, map_threshold(score_map, score, threshold)))
    short = Path(name).name
    badge = ' <span class="badge">stands out</span>' if suspicious else ""
    verdict = "would be rejected" if score > threshold else "passes"
    return (
        f'<figure><div class="pair">{img(shown, short)}{img(heat, f"Heat map of {short}")}</div>'
        f'<figcaption><span class="name">{escape(short)}</span>{badge}<br><span class="ratio">score {number(score)}, '
        f"{score / threshold:.2f}{SPACE}\u00d7{SPACE}threshold: {verdict}</span></figcaption></figure>"
    )
