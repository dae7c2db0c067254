"""One page for the person who answers for quality: what was learnt, what it promises, and what to look at."""

from __future__ import annotations

import math
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.charts import Mark, histogram
from calibration.check_table import check_rows
from calibration.errors import BundleError, StorageError
from calibration.overlay import overlay, visible_threshold
from calibration.page import SPACE, bullets, enlarged, number, one_in, page, percent, picture, section, table
from calibration.score_map import covering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.bundle import Bundle, GoldenCheck
    from calibration.speed import Speed

_METHODS = {
    "mean_shift": "Features of frozen layers are averaged over a small region. For each place of the picture the mean "
    "and the covariance of the good parts are known; the covariance is drawn toward the one that all places share, by "
    "the weight alpha. The score of a place is its squared Mahalanobis distance from the good parts (after Hermann et "
    "al. 2022, Defard et al. 2021, Ledoit and Wolf 2004); that of a picture a mean in which the highest count most.",
    "padim": "For each place of the picture the mean and the covariance of the good parts are known, over some of the "
    "features. The score of a place is its squared Mahalanobis distance from the good parts (PaDiM, Defard et al. "
    "2021); that of a picture is the largest.",
    "gaussian": "Each level of features is averaged over the whole picture and compared with the good parts by its "
    "Mahalanobis distance; the score is the sum over the levels (Rippel et al. 2021). It does not say where in the "
    "picture a defect is.",
    "patchcore": "A few patches of the good parts are remembered, so that they cover all others. The score of a place "
    "is its squared distance to the nearest one remembered (PatchCore, Roth et al. 2022); that of a picture is the "
    "largest, re-weighted.",
    "patch_svdd": "Patches of two sizes are compared with those remembered, by features trained on the good parts. The "
    "score is the product of the distances to the nearest of both sizes (Patch SVDD, Yi and Yoon 2020).",
}


def write_report(path: Path, bundle: Bundle, checks: Sequence[GoldenCheck], speed: Speed) -> None:
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


def report_page(bundle: Bundle, checks: Sequence[GoldenCheck], speed: Speed) -> str:
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
        _learnt_from(bundle, reference),
        _checks(bundle, reference),
        _method(bundle),
        _machine(checks, speed),
        _identity(bundle),
        "<footer>Written by <code>shiftwatch-calibrate report</code>. One file, which loads nothing.</footer>",
    ]
    return page(f"{bundle.path.absolute().name}: calibration report", "\n".join(parts))


def _header(bundle: Bundle, reference: dict[str, NDArray[Any]], speed: Speed) -> str:
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
        f'<p class="when">Learnt on {_when(bundle)} from {escape(images.source)}</p>'
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
        mark=Mark(point.threshold, f"threshold {number(point.threshold)}", rejects),
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
        _pair(frame, covering(score_map, grid), (name, float(score), threshold), suspicious=name in suspicious)
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
    heat = overlay(shown, None, score_map, visible_threshold(score_map, threshold))
    short = Path(name).name
    badge = ' <span class="badge">stands out</span>' if suspicious else ""
    verdict = "would be rejected" if score > threshold else "passes"
    return (
        f'<figure><div class="pair">{picture(shown, short)}{picture(heat, f"Heat map of {short}")}</div>'
        f'<figcaption><span class="name">{escape(short)}</span>{badge}<br><span class="ratio">score {number(score)}, '
        f"{score / threshold:.2f}{SPACE}\u00d7{SPACE}threshold: {verdict}</span></figcaption></figure>"
    )


def _learnt_from(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    images, preprocess = bundle.manifest.images, bundle.manifest.preprocess
    region = preprocess.region
    place = "the whole frame"
    if region is not None:
        place = f"{region.width} x {region.height} pixels, {region.x} from the left and {region.y} from the top"
    brightness = "divided out of each picture" if preprocess.divide_brightness else "kept as it is"
    rows = [
        ("Source", escape(images.source)),
        ("Learnt from", f"{images.count:,} good images"),
        *_merged_from(bundle),
        ("Left out by name", f"{len(images.left_out):,}" if images.left_out else "none"),
        ("Skipped", f"{len(images.skipped):,}, not readable" if images.skipped else "none"),
        ("Region inspected", place),
        ("Size for the network", f"{preprocess.width} x {preprocess.height} pixels"),
        ("Brightness", brightness),
    ]
    good_frames = reference["golden_frames"][:-1]  # the last one is damaged on purpose
    shown = "".join(picture(enlarged(frame), "One of the good images") for frame in good_frames)
    charts = (
        ("Brightness", "mean of all pixels, 0 to 255", reference["brightness"].mean(axis=1)),
        ("Sharpness", "variance of the Laplacian", reference["sharpness"]),
    )
    columns = "".join(
        f'<div><h3>{title}</h3>{histogram(values, title)}<p class="axis-title">{axis}</p></div>'
        for title, axis, values in charts
    )
    return section(
        "What it has learnt from",
        table(rows),
        "<h3>Left out</h3>" + bullets(images.left_out) if images.left_out else "",
        "<h3>Skipped</h3>" + bullets(images.skipped) if images.skipped else "",
        "<h3>Some of the good images, as the network sees them</h3>",
        f'<div class="pictures">{shown}</div>',
        f'<div class="columns">{columns}</div>',
        '<p class="small">Number of images by brightness and sharpness. Two heaps, or an image far from all others, '
        "may be a change of light or a blurred lens.</p>",
    )


def _merged_from(bundle: Bundle) -> list[tuple[str, str]]:
    merge = bundle.manifest.merge
    return [
        (
            "Merged from",
            (
                f"{parent.images:,} images, each counting {parent.weight:g}, of bundle "
                f'<span class="mono">{escape(parent.identity[:16])}</span>'
            ),
        )
        for parent in (merge.parents if merge else ())
    ]


def _checks(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    preprocess, size = bundle.preprocess, reference.get("frame_size", np.array(()))
    seen = (preprocess.width, preprocess.height)
    if preprocess.region is not None:
        seen = (preprocess.region.width, preprocess.region.height)
    elif len(size):
        seen = (int(size[1]), int(size[0]))
    rows = check_rows(reference, (seen[0] / preprocess.width, seen[1] / preprocess.height))
    return section(
        "When a frame is not trusted",
        "<p>The agent calls no part OK on a frame that good ones say cannot be trusted.</p>",
        table([(name, escape(state)) for name, state in rows])
        if rows
        else "<p>The bundle was made before there were these checks. Calibrate again to have them.</p>",
    )


def _method(bundle: Bundle) -> str:
    manifest = bundle.manifest
    backbone = manifest.backbone
    parameters = ", ".join(f"{escape(name)} {_value(value)}" for name, value in manifest.detector.parameters.items())
    stages = f" ({escape(', '.join(backbone.stages))})" if backbone.stages else ""
    tail = "quantile of the scores above"
    if manifest.working_point.method == "tail":
        tail = "generalised Pareto tail fitted to the highest fifth of the scores above"
    return section(
        "How it decides",
        f"<p>{escape(_METHODS.get(manifest.detector.name, manifest.detector.name))}</p>",
        table(
            [
                ("Features", f"{escape(backbone.name)}{stages}"),
                ("Grid", f"{backbone.channels} channels on a grid of {backbone.grid[1]} x {backbone.grid[0]} places"),
                ("Detector", f"{escape(manifest.detector.name)}: {parameters}"),
                ("Threshold", tail),
                *([("Why these settings", escape(manifest.choice.reason))] if manifest.choice else []),
            ]
        ),
    )


def _machine(checks: Sequence[GoldenCheck], speed: Speed) -> str:
    deviation = max(check.deviation for check in checks)
    return section(
        "On the machine of this report",
        table(
            [
                ("Machine", escape(speed.processor)),
                ("Runtime", escape(speed.backend)),
                ("Time of the network", f"{speed.median_ms:.3g}{SPACE}ms, the median of {speed.runs} runs"),
                ("Golden frames", f"{len(checks)} scored again, at most {deviation:.1e} away from calibration"),
            ]
        ),
    )


def _identity(bundle: Bundle) -> str:
    manifest = bundle.manifest
    rows = [("Bundle", bundle.identity), *((name, digest) for name, digest in sorted(manifest.files.items()))]
    weights = [("Weights", digest) for digest in manifest.backbone.weights_sha256]
    software = ", ".join(f"{escape(name)} {escape(number)}" for name, number in manifest.software.items())
    return section(
        "Identity",
        '<p class="small">SHA-256 of the manifest, which identifies the bundle, and of each file. The agent tells the '
        "line the first as <code>bundleHash</code>.</p>",
        table([(name, f'<span class="mono">{escape(digest)}</span>') for name, digest in (*rows, *weights)]),
        table([("Made with", software)]),
    )


def _when(bundle: Bundle) -> str:
    when = datetime.fromisoformat(bundle.manifest.created_at)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname()}"


def _value(value: float | str | bool) -> str:  # noqa: FBT001 - a parameter of any kind
    return f"{value:g}" if isinstance(value, float) else escape(str(value))
