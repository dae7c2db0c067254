"""Plots of an evaluation: curves, histograms, and the worst mistakes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.errors import SettingError, install_extra
from calibration.imaging.heatmap import display_threshold, overlay
from calibration.imaging.image_files import read_image
from calibration.imaging.score_map import cover_region, map_threshold
from calibration.plain_text import printable, rounded
from calibration.workstation.output_files import accessible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.workstation.evaluation.evaluation import EvaluationResult, Scored

WORST = 6
_GOOD, _DEFECTIVE, _LINE = "#2f6f8f", "#c2352b", "#444444"
_BINS = 40
_DPI = 130


def write_plots(folder: Path, evaluation: EvaluationResult, bundle: Bundle, engine: Engine) -> list[Path]:
    """Write ``roc.png``, ``scores.png``, and ``false_rejects.png`` and ``misses.png`` where there are any.

    The last two show up to six images each, the worst first, with heat maps. Plots of an earlier run are replaced.

    Raises:
        SettingError: matplotlib is not installed.
        StorageError: Not writable.
    """
    threshold = evaluation.threshold
    rejects = sorted((each for each in evaluation.good if each.score > threshold), key=lambda each: -each.score)
    misses = sorted((each for each in evaluation.defective if each.score <= threshold), key=lambda each: each.score)
    figures = {"roc.png": _roc(evaluation), "scores.png": _histograms(evaluation)}
    for name, title, worst in (
        ("false_rejects.png", f"{len(rejects)} of {len(evaluation.good)} good images rejected", rejects[:WORST]),
        ("misses.png", f"{len(misses)} of {len(evaluation.defective)} defective images missed", misses[:WORST]),
    ):
        figures[name] = _gallery(title, worst, bundle, engine) if worst else None
    with accessible(folder, "--plots FOLDER"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            (folder / name).unlink(missing_ok=True)
            if figure is not None:
                figure.savefig(folder / name, dpi=_DPI)
    return [folder / name for name, figure in figures.items() if figure is not None]


def _figure(width: float, height: float) -> Any:  # noqa: ANN401 - matplotlib may be missing
    if "MPLCONFIGDIR" not in os.environ:  # else matplotlib writes a list of fonts into the home
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="shiftwatch-")
        atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise SettingError(what="plots need matplotlib", remedy=f"install it: {install_extra('evaluate')}") from error
    return Figure(figsize=(width, height), layout="constrained")


def _roc(evaluation: EvaluationResult) -> Any:  # noqa: ANN401
    from sklearn.metrics import roc_curve  # noqa: PLC0415 - an extra, there if there is an evaluation

    figure = _figure(5, 5)
    axes = figure.subplots()
    truth = [each.image.defective for each in evaluation.scored]
    rejected, detected, _ = roc_curve(truth, [each.score for each in evaluation.scored])
    axes.plot(rejected, detected, color=_GOOD, linewidth=2)
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=0.8, linestyle=":")
    here = (evaluation.false_reject_rate, evaluation.detection_rate)
    axes.plot(*here, "o", color=_DEFECTIVE, label=f"threshold: {here[1]:.1%} found, {here[0]:.1%} rejected")
    axes.set(
        title=f"Image AUROC {evaluation.image_auroc:.4f}",
        xlabel="good images rejected",
        ylabel="defective images found",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.legend(loc="lower right", frameon=False)
    return figure


def _histograms(evaluation: EvaluationResult) -> Any:  # noqa: ANN401
    figure = _figure(8, 4)
    axes = figure.subplots()
    positive = [max(each.score, np.finfo(np.float32).tiny) for each in evaluation.scored]
    edges = np.geomspace(min(positive) * 0.99, max(*positive, evaluation.threshold) * 1.01, _BINS + 1)
    for name, part, colour in (("good", evaluation.good, _GOOD), ("defective", evaluation.defective, _DEFECTIVE)):
        weights = np.full(len(part), 1 / len(part))
        scores = [each.score for each in part]
        axes.hist(scores, edges, weights=weights, color=colour, alpha=0.6, label=f"{len(part)} {name}")
    axes.axvline(
        evaluation.threshold, color=_LINE, linestyle="--", label=f"threshold {rounded(evaluation.threshold, 4)}"
    )
    axes.set(title="Scores", xlabel="score", ylabel="share of images", xscale="log")
    axes.legend(frameon=False)
    return figure


def _gallery(title: str, worst: Sequence[Scored], bundle: Bundle, engine: Engine) -> Any:  # noqa: ANN401
    figure = _figure(2.4 * len(worst) + 0.4, 5.2)
    figure.suptitle(f"{title}; the worst first")
    threshold, grid = bundle.manifest.working_point.threshold, bundle.manifest.backbone.grid
    columns = figure.subplots(2, len(worst), squeeze=False).T
    for (plain, heated), each in zip(columns, worst, strict=True):
        frame = read_image(each.image.path)
        location = bundle.preprocess.locate(frame)
        score_map = cover_region(engine(bundle.preprocess.network_input(frame, location.region)).map, grid)
        shown_from = display_threshold(score_map, map_threshold(score_map, each.score, threshold))
        heat = overlay(frame, location.region, score_map, shown_from)
        for axes, shown in ((plain, frame), (heated, heat)):
            axes.imshow(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB))
            axes.set_axis_off()
            axes.set_anchor("N")
        name = f"{each.image.label}/{each.image.path.name}" if each.image.defective else each.image.path.name
        title = f"{printable(name)}\n{each.score / threshold:.2f} x threshold"
        plain.set_title(title, fontsize=8, parse_math=False)
    return figure
