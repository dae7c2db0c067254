"""How well a bundle does on images whose truth is known."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.errors import DatasetError, SettingError, StorageError
from calibration.pictures import read_mask, read_picture
from calibration.preprocess import crop
from calibration.score_map import covering

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.bundle import Bundle
    from calibration.dataset import Labelled
    from calibration.engine import Engine
    from calibration.preprocess import Image, Preprocess

# Pixel AUROC over histograms of this many bins: exact ranks of every pixel of every image would not fit into memory.
_BINS = 2000


@dataclass(frozen=True, slots=True)
class Scored:
    """One image and its score."""

    image: Labelled
    score: float


@dataclass(frozen=True)
class Evaluation:
    """Figures of one bundle on one data set.

    Attributes:
        scored: Every readable image with its score.
        image_auroc: Chance that a defective image scores above a good one.
        brightness_auroc: The same for mean brightness alone; where it is far from 0.5, light may pass for skill.
        pixel_auroc: Over the pixels of images with masks and of good images; None without masks.
        false_reject_rate: Share of good images above the threshold.
        detection_rate: Share of defective images above the threshold.
        detection_by_kind: The same for each kind of defect.
        skipped: Images that could not be read.
    """

    scored: list[Scored]
    image_auroc: float
    brightness_auroc: float
    pixel_auroc: float | None
    false_reject_rate: float
    detection_rate: float
    detection_by_kind: dict[str, float]
    skipped: list[str] = field(default_factory=list)


def evaluate(
    images: Sequence[Labelled], bundle: Bundle, engine: Engine, progress: Callable[[int, int], None]
) -> Evaluation:
    """Score labelled images.

    Args:
        images: With their truth.
        bundle: Says how to prepare them, and the threshold.
        engine: Runs the bundle's network; entered already.
        progress: Told (done, total).

    Raises:
        SettingError: scikit-learn is not installed.
        DatasetError: No good or no defective image was readable, or one is too small for the region of interest.
    """
    preprocess, averaging = bundle.preprocess, bundle.manifest.detector.averaging
    scored: list[Scored] = []
    brightness: list[float] = []
    skipped: list[str] = []
    pixels = _PixelHistogram()
    for number, image in enumerate(images, start=1):
        try:
            picture = read_picture(image.path)
            mask = read_mask(image.mask) if image.mask else np.zeros(picture.shape[:2], np.bool_)
        except DatasetError as error:
            skipped.append(error.what)
            continue
        inference = engine(_prepared(preprocess, image, picture))
        scored.append(Scored(image, inference.score))
        brightness.append(float(picture.mean()))
        if image.mask or not image.defective:
            score_map = covering(inference.map, averaging)
            pixels.add(score_map, mask if preprocess.region is None else crop(mask, preprocess.region))
        progress(number, len(images))
    return _summarise(scored, brightness, pixels, bundle.manifest.working_point.threshold, skipped)


def _prepared(preprocess: Preprocess, image: Labelled, picture: Image) -> Image:
    try:
        return preprocess(picture)
    except DatasetError as error:
        raise DatasetError(what=f"{image.path}: {error.what}", remedy=error.remedy) from error


def _summarise(
    scored: list[Scored], brightness: list[float], pixels: _PixelHistogram, threshold: float, skipped: list[str]
) -> Evaluation:
    truth = np.array([each.image.defective for each in scored], bool)
    if truth.all() or not truth.any():
        raise DatasetError(
            what=f"of {len(scored)} readable images {int(truth.sum())} are defective; both kinds are needed",
            remedy="give a data set with good and defective images",
        )
    scores = np.array([each.score for each in scored])
    rejected = scores > threshold
    labels = np.array([each.image.label for each in scored])
    return Evaluation(
        scored=scored,
        image_auroc=auroc(truth, scores),
        brightness_auroc=auroc(truth, np.array(brightness)),
        pixel_auroc=pixels.auroc(),
        false_reject_rate=float(rejected[~truth].mean()),
        detection_rate=float(rejected[truth].mean()),
        detection_by_kind={str(kind): float(rejected[labels == kind].mean()) for kind in np.unique(labels[truth])},
        skipped=skipped,
    )


def auroc(truth: NDArray[np.bool_], scores: NDArray[np.floating], weights: NDArray[np.floating] | None = None) -> float:
    """Area under the ROC curve, by scikit-learn.

    Raises:
        SettingError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - an extra; the device runs without it
    except ImportError as error:
        raise SettingError(
            what="evaluation needs scikit-learn", remedy="install it: pip install '.[evaluate]' in the project's folder"
        ) from error
    return float(roc_auc_score(truth, scores, sample_weight=weights))


class _PixelHistogram:
    """Counts of good and defective pixels by score, on a logarithmic scale."""

    def __init__(self) -> None:
        self._edges = np.linspace(-5.0, 25.0, _BINS + 1)
        self._good = np.zeros(_BINS)
        self._defective = np.zeros(_BINS)

    def add(self, score_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        rows, columns = mask.shape
        grown = cv2.resize(score_map, (columns, rows), interpolation=cv2.INTER_LINEAR)
        values = np.clip(np.log(np.maximum(grown, 1e-30)), self._edges[0], self._edges[-1])
        self._good += np.histogram(values[~mask], self._edges)[0]
        self._defective += np.histogram(values[mask], self._edges)[0]

    def auroc(self) -> float | None:
        if not self._defective.any() or not self._good.any():
            return None
        middle = (self._edges[1:] + self._edges[:-1]) / 2
        truth = np.repeat([False, True], _BINS)
        weights = np.concatenate([self._good, self._defective])
        return auroc(truth, np.tile(middle, 2), weights)


def write_scores(path: Path, evaluation: Evaluation, threshold: float) -> None:
    """``path, label, defective, score, rejected`` of every image, as CSV.

    Raises:
        StorageError: Not writable.
    """
    try:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "defective", "score", "rejected"])
            for each in evaluation.scored:
                rejected = int(each.score > threshold)
                writer.writerow([each.image.path, each.image.label, int(each.image.defective), each.score, rejected])
    except OSError as error:
        raise StorageError(
            what=f"cannot write {path.absolute()}: {error.strerror}", remedy="give another place with --scores FILE"
        ) from error
