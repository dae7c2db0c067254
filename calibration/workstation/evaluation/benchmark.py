"""Compares settings: each learns from, and is tested on, the same divisions of the same data sets."""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from calibration.backbones.backbone import Backbone
from calibration.deployment.latency import measure_latency
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError, ShiftwatchError, StorageError
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.evaluation import evaluate
from calibration.workstation.fit.backbone_choice import FILTERBANK
from calibration.workstation.fit.pipeline import calibrate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Preprocess
    from calibration.workstation.evaluation.evaluation import EvaluationResult
    from calibration.workstation.evaluation.splits import Split
    from calibration.workstation.settings import Settings

_DIGITS = 12
_TRAINING = 0.9  # of the time of a run in which encoders are trained

OWN_ENCODERS = Backbone((), "own encoders")
"""Stands for those that ``patch_svdd`` trains in each run."""


class Identity(BaseModel):
    """What determines a run: two runs with the same identity differ in their times only.

    Attributes:
        folds: Parts of the good images; None where all of them are learned from.
        fold: Part that is held out.
        learnt: Number of good images to learn from.
        size: Network input, ``HEIGHTxWIDTH``, and the share of each side of the image that it shows, if not all.
        parameters: All parameters of the detector, given or not.
        backbone_sha256: First digits, over weights and normalisation.
        set_sha256: First digits, over names and sizes of the files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    backbone: str
    detector: str
    seed: int
    folds: int | None
    fold: int | None
    learnt: int
    size: str
    divide_brightness: bool
    threads: int
    parameters: str
    backbone_sha256: str
    set_sha256: str
    version: str


class Run(Identity):
    """Result of one run: the figures of ``EvaluationResult`` under the same names, and what they cost.

    Attributes:
        skipped: Images to learn from or to test that could not be read.
        findings: What a person should know about the images to learn from, and which they are.
        fit_s: Time from images to bundle.
        network_ms: Median time of the network for one frame, alone.
        bundle_mb: Size of all files of the bundle, 10^6 bytes.
    """

    good: int
    defective: int
    image_auroc: float
    average_precision: float
    brightness_auroc: float
    pixel_auroc: float | None
    region_overlap: float | None
    best_f1: float
    best_f1_threshold: float
    false_reject_rate_at_full_detection: float
    threshold: float
    promised_false_reject_rate: float
    expected_false_reject_rate: tuple[float, float]
    false_reject_rate: float
    promise_kept: bool
    detection_rate: float
    detection_by_kind: dict[str, float]
    skipped: tuple[str, ...]
    findings: tuple[str, ...] = ()
    fit_s: float
    network_ms: float
    bundle_mb: float

    @property
    def identity(self) -> Identity:
        """What determines this run."""
        return Identity.model_validate(self.model_dump(include=set(Identity.model_fields)))


@dataclass(frozen=True)
class Candidate:
    """One setting to compare; ``detector`` is the name in tables of the detector in the settings.

    The backbone of ``patch_svdd`` is ``OWN_ENCODERS``.
    """

    backbone: Backbone
    detector: str
    settings: Settings


@dataclass(frozen=True)
class Task:
    """One run to do."""

    split: Split
    candidate: Candidate
    identity: Identity

    @property
    def images(self) -> int:
        """Number of images to learn from and to test; the time of the run is about proportional to it."""
        return len(self.split.learnt) + len(self.split.test)


def tasks(splits: Sequence[Split], candidates: Sequence[Candidate]) -> list[Task]:
    """Every candidate on every split, grouped by split.

    Raises:
        SettingError: Two of them would be the same run.
    """
    content = {data: data.content_sha256 for data in {split.data for split in splits}}
    made = [
        Task(split, candidate, _identity(split, candidate, content[split.data]))
        for split in splits
        for candidate in candidates
    ]
    seen: set[tuple[object, ...]] = set()
    for each in made:
        row = (*_row(each.identity), each.identity.seed, each.identity.fold)
        if row in seen:
            raise SettingError(
                what=f"{' with '.join(_row(each.identity))} would be compared with itself",
                remedy="give each data set, --backbone and --detector once; rename one of two sets with the same name",
            )
        seen.add(row)
    return made


def _row(identity: Identity) -> tuple[str, str, str]:
    return identity.set, identity.backbone, identity.detector


def _size_of(preprocess: Preprocess) -> str:
    crop = "" if preprocess.crop == 1.0 else f" of {preprocess.crop:g}"
    return f"{preprocess.height}x{preprocess.width}{crop}"


def _identity(split: Split, candidate: Candidate, content_sha256: str) -> Identity:
    backbone, settings = candidate.backbone, candidate.settings
    weights = (backbone.weights_sha256, [(graph.mean, graph.std) for graph in backbone.graphs])
    return Identity(
        set=split.data.name,
        backbone=backbone.label,
        detector=candidate.detector,
        seed=split.seed,
        folds=split.folds,
        fold=split.fold,
        learnt=len(split.learnt),
        size=_size_of(settings.preprocess),
        divide_brightness=settings.divide_brightness,
        threads=settings.threads,
        parameters=repr(settings.detector),
        backbone_sha256=hashlib.sha256(repr(weights).encode()).hexdigest()[:_DIGITS],
        set_sha256=content_sha256[:_DIGITS],
        version=version("shiftwatch"),
    )


def benchmark_runs(
    waiting: Collection[Task], keep: Callable[[Run], None], folder: Path | None, progress: Callable[[str, float], None]
) -> None:
    """Do all runs, one after the other.

    Args:
        waiting: The runs to do.
        keep: Receives each run as soon as it is done.
        folder: Where bundles lie until they are evaluated; None: the system's folder for temporary files.
        progress: Receives (current run, runs done, with fractions).

    Raises:
        ShiftwatchError: Names the run that failed; the ones before it are kept.
    """
    for number, task in enumerate(waiting):
        name = " ".join(_row(task.identity))
        try:
            run = measured(task, folder, lambda share: progress(name, number + share))  # noqa: B023 - called at once
        except ShiftwatchError as error:
            raise type(error)(what=f"{name}: {error.what}", remedy=error.remedy) from error
        keep(run)
        progress(name, number + 1)


def measured(task: Task, folder: Path | None, progress: Callable[[float], None]) -> Run:
    """Calibrate and evaluate; ``progress`` receives the share that is done.

    Raises:
        ShiftwatchError: Those of ``calibrate`` and ``evaluate``.
        StorageError: No room for the bundle.
    """
    split, candidate = task.split, task.candidate
    images = ImageFiles(str(split.data.source), split.learnt, copies=split.data.copies)
    backbone = candidate.backbone if candidate.backbone.graphs else FILTERBANK
    learnt, before = len(split.learnt), 0.0

    def learning(step: str, done: int, total: int) -> None:
        nonlocal before
        if step == "training" and total:
            before = _TRAINING
            progress(before * done / total)
        if step == "learning":
            advance(done)

    def advance(images: int) -> None:
        progress(before + (1 - before) * images / task.images)

    with temporary_folder(folder) as temporary:
        start_s = time.perf_counter()
        bundle = calibrate(images, backbone, candidate.settings, temporary / "bundle", learning)
        fit_s = time.perf_counter() - start_s
        with OnnxRuntimeEngine(bundle.network, candidate.settings.threads) as engine:
            evaluation = evaluate(split.test, bundle, engine, lambda done, _total: advance(learnt + done))
            network_ms = measure_latency(bundle, engine).median_ms
        return _run(task.identity, evaluation, bundle, fit_s, network_ms)


@contextmanager
def temporary_folder(folder: Path | None) -> Iterator[Path]:
    """A folder in this one, or in the system's for temporary files; removed with its content.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder)
    except OSError as error:
        raise StorageError(
            what=f"cannot create a temporary folder in {folder or tempfile.gettempdir()}: {error.strerror}",
            remedy="make room there, or choose another disk with --csv FILE or the variable TMPDIR",
        ) from error
    with temporary as name:
        yield Path(name)


def _run(identity: Identity, evaluation: EvaluationResult, bundle: Bundle, fit_s: float, network_ms: float) -> Run:
    figures = asdict(evaluation)
    del figures["scored"]
    learned = bundle.manifest.images
    figures["skipped"] = (*learned.skipped, *evaluation.skipped)
    figures["findings"] = tuple(finding.on_one_line for finding in learned.findings)
    return Run(
        **identity.model_dump(),
        **figures,
        promise_kept=evaluation.promise_kept,
        good=len(evaluation.good),
        defective=len(evaluation.defective),
        fit_s=fit_s,
        network_ms=network_ms,
        bundle_mb=sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6,
    )
