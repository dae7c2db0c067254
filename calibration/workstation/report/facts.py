"""The sections of a report that state facts about a bundle."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from calibration.imaging.heatmap import hatched
from calibration.plain_text import counted, rounded
from calibration.statistics.threshold import CHI_SQUARE, HIGHEST
from calibration.workstation.report.histogram import histogram
from calibration.workstation.report.html import SPACE, bullets, enlarged, img, section, table
from calibration.workstation.report.rows import check_rows, network_pixel, preprocess_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle, GoldenCheck
    from calibration.bundle.manifest import FindingRecord
    from calibration.deployment.latency import Latency
    from calibration.imaging.preprocess import Preprocess

_METHODS = {
    "mean_shift": "Features of frozen layers are averaged over a small region. For each location, the mean "
    "and the covariance of the good parts are known; the covariance is drawn toward the one that all locations share, "
    "by the weight alpha. The score of a location is its squared Mahalanobis distance from the good parts (after "
    "Hermann et al. 2022, Defard et al. 2021, Ledoit and Wolf 2004); the score of an image is a mean in which the "
    "highest count most.",
    "hotelling": "Patches of some cells are joined. The covariance of all of them, shrunk, whitens the difference "
    "between the mean of the patches of a region and that of the good parts. The score of a region is Hotelling's T2 "
    "of this shift (Hermann et al. 2022); the score of an image is the largest.",
    "padim": "For each location, the mean and the covariance of the good parts are known, over some of the "
    "features. The score of a location is its squared Mahalanobis distance from the good parts (PaDiM, Defard et al. "
    "2021); the score of an image is the largest.",
    "gaussian": "Each level of features is averaged over the whole image and compared with the good parts by its "
    "Mahalanobis distance; the score is the sum over the levels (Rippel et al. 2021). It does not say where in the "
    "image a defect is.",
    "patchcore": "Some patches of the good parts are kept that represent all. The score of a location is the squared "
    "distance to the nearest of them (PatchCore, Roth et al. 2022); the score of an image is the largest, re-weighted.",
    "patch_svdd": "Patches of two sizes are compared with those of the good parts, by features trained on these. The "
    "score is the product of the distances to the nearest of both sizes (Patch SVDD, Yi and Yoon 2020).",
}


def learned_from(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    """What the bundle was learned from; ``reference`` has the arrays in its ``reference.npz``."""
    images, preprocess = bundle.manifest.images, bundle.manifest.preprocess
    region = preprocess.region
    inspected = "the whole frame"
    if region is not None:
        inspected = f"{region.width} x {region.height} pixels, {region.x} from the left and {region.y} from the top"
    brightness = "divided out of each image" if preprocess.divide_brightness else "kept as it is"
    rows = [
        ("Source", escape(images.source)),
        ("Learned from", f"{images.count:,} good images"),
        *_merged_from(bundle),
        ("Left out by name", f"{len(images.left_out):,}" if images.left_out else "none"),
        ("Skipped", f"{len(images.skipped):,}, not readable" if images.skipped else "none"),
        ("Region inspected", inspected),
        *((name, escape(text)) for name, text in preprocess_rows(preprocess, reference)),
        ("Brightness", brightness),
    ]
    good_frames = reference["golden_frames"][:-1]  # the last one is damaged on purpose
    shown = "".join(img(_as_inspected(frame, bundle.preprocess), "One of the good images") for frame in good_frames)
    charts = (
        ("Brightness", "mean of all pixels, 0 to 255", reference["brightness"].mean(axis=1)),
        ("Sharpness", "variance of the Laplacian", reference["sharpness"]),
    )
    columns = "".join(
        f'<div><h3>{title}</h3>{histogram(values, title)}<p class="axis-title">{axis}</p></div>'
        for title, axis, values in charts
    )
    return section(
        "What it has learned from",
        *map(_finding, images.findings),
        table(rows),
        "<h3>Left out</h3>" + bullets(images.left_out) if images.left_out else "",
        "<h3>Skipped</h3>" + bullets(images.skipped) if images.skipped else "",
        "<h3>Some of the good images, as the network sees them</h3>",
        f'<div class="pictures">{shown}</div>',
        '<p class="small">Hatched areas are ignored.</p>' if preprocess.ignored else "",
        f'<div class="columns">{columns}</div>',
        '<p class="small">Number of images by brightness and sharpness. Two peaks, or an image far from all others, '
        "may mean a change of light or a blurred lens.</p>",
    )


def _finding(finding: FindingRecord) -> str:
    title = f"{len(finding.images):,} {escape(finding.what)}"
    return f'<div class="note"><p><b>{title}</b></p>{bullets(finding.images)}</div>'


def _merged_from(bundle: Bundle) -> list[tuple[str, str]]:
    merge = bundle.manifest.merge
    parents = merge.parents if merge else ()
    each = (
        (f"{counted(parent.images, 'image', ',')}, each counting {parent.weight:g}", parent.identity)
        for parent in parents
    )
    return [("Merged from", f'{images}, of bundle <span class="mono">{name[:16]}</span>') for images, name in each]


def _as_inspected(frame: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    shown = enlarged(frame)
    return shown if preprocess.ignore_mask is None else hatched(shown, preprocess.ignore_mask.area)


def checks_of(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    """When the agent does not trust a frame: the camera checks and their limits."""
    rows = check_rows(reference, network_pixel(bundle.manifest.preprocess, reference))
    return section(
        "When a frame is not trusted",
        "<p>The agent never reports a part as OK on a frame that fails one of these checks.</p>",
        table([(name, escape(state)) for name, state in rows])
        if rows
        else "<p>The bundle is older than these checks. Calibrate again to have them.</p>",
    )


def method_of(bundle: Bundle) -> str:
    """How the bundle decides: method, features and threshold."""
    manifest = bundle.manifest
    backbone = manifest.backbone
    parameters = ", ".join(f"{escape(name)} {_value(value)}" for name, value in manifest.detector.parameters.items())
    stages = f" ({escape(', '.join(backbone.stages))})" if backbone.stages else ""
    tail = {
        CHI_SQUARE: "what a sum of squares of Gaussian features exceeds (Rippel et al. 2021, eq. 6)",
        HIGHEST: "the highest of the scores above, of too few images to promise a rate",
        "tail": "generalised Pareto tail fitted to the highest fifth of the scores above",
        "log-normal": "quantile of the log-normal law that the scores above their median follow",
    }.get(manifest.working_point.method, "quantile of the scores above")
    return section(
        "How it decides",
        f"<p>{escape(_METHODS.get(manifest.detector.name, manifest.detector.name))}</p>",
        table(
            [
                ("Features", f"{escape(backbone.name)}{stages}"),
                (
                    "Grid",
                    f"{backbone.channels} channels on a grid of {backbone.grid[1]} x {backbone.grid[0]} locations",
                ),
                ("Detector", f"{escape(manifest.detector.name)}: {parameters}"),
                ("Threshold", tail),
                *([("Why these settings", escape(manifest.choice.reason))] if manifest.choice else []),
            ]
        ),
    )


def machine_of(checks: Sequence[GoldenCheck], speed: Latency) -> str:
    """Speed and deviation on the machine of this report."""
    deviation = max(check.deviation for check in checks)
    return section(
        "On the machine of this report",
        table(
            [
                ("Machine", escape(speed.processor)),
                ("Runtime", escape(speed.backend)),
                ("Time of the network", f"{rounded(speed.median_ms, 3)}{SPACE}ms, the median of {speed.runs} runs"),
                ("Golden frames", f"{len(checks)} scored again, at most {deviation:.1e} away from calibration"),
            ]
        ),
    )


def identity_of(bundle: Bundle) -> str:
    """The hashes of the bundle, and the software that made it."""
    manifest = bundle.manifest
    rows = [("Bundle", bundle.identity), *((name, digest) for name, digest in sorted(manifest.files.items()))]
    weights = [("Weights", digest) for digest in manifest.backbone.weights_sha256]
    software = ", ".join(f"{escape(name)} {escape(number)}" for name, number in manifest.software.items())
    return section(
        "Identity",
        '<p class="small">SHA-256 of the manifest, which identifies the bundle, and of each file. The agent publishes '
        "the first as <code>bundleHash</code>.</p>",
        table([(name, f'<span class="mono">{escape(digest)}</span>') for name, digest in (*rows, *weights)]),
        table([("Made with", software)]),
    )


def when_of(bundle: Bundle) -> str:
    """When the bundle was made, in words."""
    when = datetime.fromisoformat(bundle.manifest.created_at)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname()}"


def _value(value: float | str | bool) -> str:  # noqa: FBT001 - a parameter of any kind
    return f"{value:g}" if isinstance(value, float) else escape(str(value))
