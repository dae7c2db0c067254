"""One page for the person who answers for quality: what was learnt, what it promises, and what to look at."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import BundleError, StorageError
from calibration.imaging.heatmap import display_threshold, overlay
from calibration.imaging.score_map import cover_region
from calibration.workstation.report.facts import checks_of, identity_of, learnt_from, machine_of, method_of, when_of
from calibration.workstation.report.histogram import HistogramMark, histogram
from calibration.workstation.report.html import SPACE, enlarged, number, one_in, page, percent, picture, section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle, GoldenCheck
    from calibration.deployment.latency import Latency


def write_report(path: Path, bundle: Bundle, checks: Sequence[GoldenCheck], speed: Latency) -> None:
    """Write the page, over an older one.

    Raises:
        BundleError: The bundle was made before there were reports.
        StorageError: Not writable.
    """
    content = report_page(bundle, checks, speed)
    try:
        path.write_text(content, encoding="utf-8", errors="replace")
    except OSError as error:
        raise StorageError(
            what=f"cannot write {path.absolute()}: {error.strerror}", remedy="give another place with --out FILE"
        ) from error


def report_page(bundle: Bundle, checks: Sequence[GoldenCheck], speed: Latency) -> str:
    """The page, as HTML.

    Args:
        bundle: What to report on.
        checks: Of its golden frames, on this machine.
        speed: On this machine.

    Raises:
        BundleError: The bundle was made before there were reports.
    """
    reference = bundle.reference()
    if "highest_frames" not in reference:
        raise BundleError(
            what=f"{bundle.path} was made by older software and lacks the pictures of a report",
            remedy="calibrate again",
        )
    parts = [
        _header(bundle, reference, speed),
        _promise(bundle, reference["good_scores"]),
        _doubtful(bundle, reference),
        learnt_from(bundle, reference),
        checks_of(bundle, reference),
        method_of(bundle),
        machine_of(checks, speed),
        identity_of(bundle),
        "<footer>Written by <code>shiftwatch-calibrate report</code>. One file, which loads nothing.</footer>",
    ]
    return page(f"{bundle.path.absolute().name}: calibration report", "\n".join(parts))


def _header(bundle: Bundle, reference: dict[str, NDArray[Any]], speed: Latency) -> str:
    images, point = bundle.manifest.images, bundle.working_point
    suspicious = len(reference["suspicious_names"])
    figures = (
        (f"{images.count:,}", "good images learnt from", ""),
        (one_in(point.false_reject_rate), "good parts rejected, promised", ""),
        (f"{suspicious:,}", "good images to look at", "doubt" if suspicious else ""),
        (f"{speed.median_ms:.3g}{SPACE}ms", "for each picture, on the machine of this report", ""),
    )
    cells = "".join(
        f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for value, name, kind in figures
    )
    return (
        f'<header><p class="kind">Shiftwatch calibration report</p><h1>{escape(bundle.path.absolute().name)}</h1>'
        f'<p class="when">Learnt on {when_of(bundle)} from {escape(images.source)}</p>'
        f'<dl class="figures">{cells}</dl></header>'
    )


def _promise(bundle: Bundle, scores: NDArray[np.float64]) -> str:
    point, record = bundle.working_point, bundle.manifest.working_point
    low, high = point.interval
    if point.method == "quantile":
        rejects = f"rejects {percent(low)} to {percent(high)}"
        certainty = (
            f"With 95{SPACE}% confidence the true rate is between {one_in(low)} and {one_in(high)} "
            f"({percent(low)} to {percent(high)})."
        )
    else:
        rejects = f"rejects at most {percent(high)}"
        certainty = (
            f"So low a rate cannot be seen in {point.images:,} images: the threshold is extrapolated beyond their "
            f"highest score. What they prove, with 95{SPACE}% confidence, is a rate of at most {percent(high)} "
            f"({one_in(high)}). To measure the rate itself, calibrate with {math.ceil(1 / point.false_reject_rate):,} "
            "images or more."
        )
    above = int((scores > point.threshold).sum())
    positive = np.maximum(scores, np.finfo(np.float64).tiny)
    chart = histogram(
        positive,
        f"Scores of {len(scores)} good images; {above} are above the threshold of {point.threshold:.4g}",
        mark=HistogramMark(point.threshold, f"threshold {number(point.threshold)}", rejects),
        logarithmic=True,
    )
    return section(
        "What it promises",
        f'<p class="promise">Of good parts, about {one_in(point.false_reject_rate)} will be rejected.</p>',
        f"<p>{escape(certainty)}</p>",
        chart,
        '<p class="axis-title">score (logarithmic), number of images</p>',
        f"<p>A part is rejected when its score is above the threshold of <b>{number(point.threshold)}</b>; of the "
        f"{len(scores):,} good images that is so for {above:,}. {_known_of_scores(bundle)}</p>",
        _chi_square(record.chi_square, scores),
        '<p class="small">The promise is for parts, light and camera as they were when these images were taken. '
        "It says nothing about how many defects are found: for that, run <code>shiftwatch-calibrate evaluate</code> "
        "with labelled images.</p>",
    )


def _known_of_scores(bundle: Bundle) -> str:
    manifest = bundle.manifest
    if manifest.merge is not None:
        return (
            f"<b>The threshold is an estimate</b>: the statistics are those of {len(manifest.merge.parents)} bundles, "
            f"and under them {manifest.merge.rescored} of the scores are known; the others follow from what these have "
            "become. Check it with good parts that were not learnt."
        )
    folds = manifest.working_point.folds
    turns = f"in {folds} turns, each time holding back a part of the images"
    if folds == manifest.images.count:
        turns = "each image was left out of them in turn"
    return f"Each was scored as a new part will be, by statistics that had not seen it ({turns})."


def _chi_square(threshold: float | None, scores: NDArray[np.float64]) -> str:
    if threshold is None:
        return ""
    above = percent(float((scores > threshold).mean()))
    return (
        f'<p class="small">For comparison: if features were Gaussian, the threshold would be {number(threshold)}; '
        f"{above} of these good images lie above it.</p>"
    )


def _doubtful(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
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
        "Good images to look at",
        _suspicion(suspicious),
        f"<p>These {len(names)} good images have the highest scores. Beside each is where its score comes from; a red "
        "outline marks what is above the threshold.</p>",
        f'<div class="pairs">{pairs}</div>',
    )


def _suspicion(names: list[str]) -> str:
    if not names:
        return "<p>No image stands out: no score is far above the rest.</p>"
    count = "One image stands out" if len(names) == 1 else f"{len(names):,} images stand out"
    listed = escape("\n".join(Path(name).name for name in names))
    return (
        f'<div class="note"><p><b>{count}</b>: the score is far above the rest. Look at '
        f"{'it' if len(names) == 1 else 'these'}: if one is a defective part, leave it out and calibrate again, since "
        "what is learnt as good will pass as good. Write the names into a file, one a line, and give it with "
        f"<code>--leave-out</code>.</p><pre>{listed}</pre></div>"
    )


def _pair(
    frame: NDArray[np.uint8],
    score_map: NDArray[np.float32],
    caption: tuple[str, float, float],
    *,
    suspicious: bool,
) -> str:
    """A picture and its heat map; below the threshold the heat is relative to the picture's own highest place."""
    name, score, threshold = caption
    shown = enlarged(frame)
    heat = overlay(shown, None, score_map, display_threshold(score_map, threshold))
    short = Path(name).name
    badge = ' <span class="badge">stands out</span>' if suspicious else ""
    verdict = "would be rejected" if score > threshold else "passes"
    return (
        f'<figure><div class="pair">{picture(shown, short)}{picture(heat, f"Heat map of {short}")}</div>'
        f'<figcaption><span class="name">{escape(short)}</span>{badge}<br><span class="ratio">score {number(score)}, '
        f"{score / threshold:.2f}{SPACE}\u00d7{SPACE}threshold: {verdict}</span></figcaption></figure>"
    )
