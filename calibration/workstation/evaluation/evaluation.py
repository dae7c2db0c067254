"""How well a bundle separates good from defective images, measured on labelled ones."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import DatasetError, SettingError, install_extra
from calibration.imaging.image_files import read_image, read_mask
from calibration.imaging.preprocess import prepare_image
from calibration.imaging.region import crop_padded
from calibration.imaging.score_map import cover_region
from calibration.plain_text import spreadsheet_cell
from calibration.statistics.threshold import expected_share_above
from calibration.workstation.evaluation.pixel_metrics import PixelHistogram
from calibration.workstation.output_files import accessible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image
    from calibration.workstation.labelled_images import Labelled


@dataclass(frozen=True, slots=True)
class Scored:
    """One image and its score."""

    image: Labelled
    score: float


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of one bundle on one data set.

    Attributes:
        scored: Every readable image with its score.
        image_auroc: Probability that a defective image scores above a good one.
        average_precision: Area under the curve of precision over recall of the defective images.
        brightness_auroc: Image AUROC of mean brightness alone; far from 0.5, lighting alone separates the classes.
        pixel_auroc: Over the pixels of images with masks and of good images; None without masks.
        region_overlap: PRO up to 30 % false positives, over the same pixels; None without masks.
        expected_false_reject_rate: Range of the observed rate in 95 of 100 cases if the promise holds.
        false_reject_rate: Share of good images above the threshold.
        detection_rate: Share of defective images above the threshold.
        false_reject_rate_at_full_detection: Share of good images not below the lowest defective one.
        best_f1: Highest F1 that any threshold gives on these images.
        best_f1_threshold: Images with this score or more count as defective for it.
        skipped: Images that could not be read, or whose mask does not fit.
    """

    scored: list[Scored]
    threshold: float
    image_auroc: float
    average_precision: float
    brightness_auroc: float
    pixel_auroc: float | None
    region_overlap: float | None
    promised_false_reject_rate: float
    expected_false_reject_rate: tuple[float, float]
    false_reject_rate: float
    detection_rate: float
    detection_by_kind: dict[str, float]
    false_reject_rate_at_full_detection: float
    best_f1: float
    best_f1_threshold: float
    skipped: list[str] = field(default_factory=list)

    @property
    def good(self) -> list[Scored]:
        """The good images."""
        return [each for each in self.scored if not each.image.defective]

    @property
    def defective(self) -> list[Scored]:
        """The defective images."""
        return [each for each in self.scored if each.image.defective]

    @property
    def promise_kept(self) -> bool:
        """Whether no more good images lie above the threshold than chance explains."""
        return self.false_reject_rate <= self.expected_false_reject_rate[1]


def evaluate(
    images: Sequence[Labelled], bundle: Bundle, engine: Engine, progress: Callable[[int, int], None]
) -> EvaluationResult:
    """Score labelled images with an entered engine; ``progress`` receives (done, total).

    Raises:
        SettingError: scikit-learn is not installed.
        DatasetError: No good or no defective image was readable, or one is too small for the region of interest.
    """
    metrics = sklearn_metrics()
    preprocess, grid = bundle.preprocess, bundle.manifest.backbone.grid
    scored: list[Scored] = []
    brightness: list[float] = []
    skipped: list[str] = []
    pixels = PixelHistogram()
    for number, image in enumerate(images, start=1):
        progress(number, len(images))
        try:
            frame = read_image(image.path)
            mask = _mask(image, frame)
        except DatasetError as error:
            skipped.append(error.what)
            continue
        prepared, location = prepare_image(preprocess, str(image.path), frame)
        inference = engine(prepared)
        scored.append(Scored(image, inference.score))
        brightness.append(float(frame.mean()))
        if image.mask or not image.defective:
            defective = crop_padded(mask.astype(np.uint8), location.region) > 0
            pixels.add(cover_region(inference.map, grid), defective, preprocess.inspected_mask(location.region))
    truth = _truth(scored)
    return EvaluationResult(
        scored=scored,
        brightness_auroc=float(metrics.roc_auc_score(truth, brightness)),
        pixel_auroc=_pixel_auroc(metrics, pixels),
        region_overlap=pixels.region_overlap(),
        skipped=skipped,
        **_ranking(metrics, truth, scored),
        **_at_threshold(truth, scored, bundle),
    )


def _mask(image: Labelled, frame: Image) -> NDArray[np.bool_]:
    if image.mask is None:
        return np.zeros(frame.shape[:2], np.bool_)
    mask = read_mask(image.mask)
    if mask.shape != frame.shape[:2]:
        sizes = [f"{columns}x{rows}" for rows, columns in (mask.shape, frame.shape[:2])]
        raise DatasetError(
            what=f"the mask {image.mask} is of {sizes[0]} pixels, its image of {sizes[1]}",
            remedy="draw it on the image as it is shown, upright",
        )
    return mask


def sklearn_metrics() -> Any:  # noqa: ANN401 - a module without types
    """The module with the metrics.

    Raises:
        SettingError: scikit-learn is not installed.
    """
    try:
        with warnings.catch_warnings():  # joblib's, about a system without shared memory: nothing here uses it
            warnings.filterwarnings("ignore", module="joblib")
            from sklearn import metrics  # noqa: PLC0415 - an extra; the device runs without it
    except ImportError as error:
        raise SettingError(
            what="evaluation needs scikit-learn", remedy=f"install it: {install_extra('evaluate')}"
        ) from error
    return metrics


def _truth(scored: list[Scored]) -> NDArray[np.bool_]:
    truth = np.array([each.image.defective for each in scored], bool)
    if truth.all() or not truth.any():
        raise DatasetError(
            what=f"of {len(scored)} readable images {int(truth.sum())} are defective; both kinds are needed",
            remedy="give a data set with good and defective images",
        )
    return truth


def _ranking(metrics: Any, truth: NDArray[np.bool_], scored: list[Scored]) -> dict[str, Any]:  # noqa: ANN401
    """Figures that need no threshold, or choose their own."""
    scores = np.array([each.score for each in scored])
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    # F1 = 2 P R / (P + R); the last point of the curve has no threshold.
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    best = int(f1.argmax())
    return {
        "image_auroc": float(metrics.roc_auc_score(truth, scores)),
        "average_precision": float(metrics.average_precision_score(truth, scores)),
        "false_reject_rate_at_full_detection": float((scores[~truth] >= scores[truth].min()).mean()),
        "best_f1": float(f1[best]),
        "best_f1_threshold": float(thresholds[best]),
    }


def _at_threshold(truth: NDArray[np.bool_], scored: list[Scored], bundle: Bundle) -> dict[str, Any]:
    """Figures at the bundle's threshold."""
    point, learned = bundle.working_point, bundle.reference()["good_scores"]
    rejected = np.array([each.score for each in scored]) > point.threshold
    labels = np.array([each.image.label for each in scored])
    return {
        "threshold": point.threshold,
        "promised_false_reject_rate": point.false_reject_rate,
        "expected_false_reject_rate": expected_share_above(learned, point.threshold, int((~truth).sum())),
        "false_reject_rate": float(rejected[~truth].mean()),
        "detection_rate": float(rejected[truth].mean()),
        "detection_by_kind": {str(kind): float(rejected[labels == kind].mean()) for kind in np.unique(labels[truth])},
    }


def _pixel_auroc(metrics: Any, pixels: PixelHistogram) -> float | None:  # noqa: ANN401
    if not pixels.defective.any() or not pixels.good.any():
        return None
    truth = np.repeat([False, True], len(pixels.scores))
    weights = np.concatenate([pixels.good, pixels.defective])
    return float(metrics.roc_auc_score(truth, np.tile(pixels.scores, 2), sample_weight=weights))


def write_scores(path: Path, evaluation: EvaluationResult) -> None:
    """``path, label, defective, score, rejected`` of every image, as CSV that a spreadsheet does not compute.

    Raises:
        StorageError: Not writable.
    """
    with accessible(path, "--scores FILE"), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "defective", "score", "rejected"])
        for each in evaluation.scored:
            rejected = int(each.score > evaluation.threshold)
            name, label = spreadsheet_cell(str(each.image.path)), spreadsheet_cell(each.image.label)
            writer.writerow([name, label, int(each.image.defective), each.score, rejected])


def write_figures(path: Path, evaluation: EvaluationResult, bundle: Bundle) -> None:
    """Write all figures as one JSON object: the attributes of ``EvaluationResult``; what has no value is null.

    Raises:
        StorageError: Not writable.
    """
    figures = asdict(evaluation)
    del figures["scored"]
    counts = {"good": len(evaluation.good), "defective": len(evaluation.defective)}
    content = {"bundle": bundle.identity, **counts, **figures, "promise_kept": evaluation.promise_kept}
    with accessible(path, "--json FILE"):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
