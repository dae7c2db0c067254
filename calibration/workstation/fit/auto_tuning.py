"""Chooses settings from good images alone: which of them best separates good parts from the same with a defect put in?

Hermann et al. 2022 leave open "how to derive those hyperparameters directly from data". Here: learn from three quarters
of a sample of the good images, put synthetic defects into the last quarter, and compare. The last quarter is varied a
little, with and without defects: on the line, position and light differ from those of calibration.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from math import prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.bundle.manifest import ChoiceRecord, TrialRecord
from calibration.detectors.contract import Detector, Folds, detector_spec
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.fold_moments import across_locations, by_location
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError
from calibration.imaging.augmentation import augmented
from calibration.imaging.preprocess import Preprocess
from calibration.imaging.synthetic_defects import DIFFERENT, SHARES, kind_and_share, with_defect
from calibration.network.fusion import feature_network
from calibration.statistics.moments import Moments
from calibration.workstation.fit.near_copies import fingerprint, near_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.head import Head
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import Settings

    Float32 = NDArray[np.float32]

SAMPLE = 400
_HELD_OUT_SHARE = 4
_DEFECTS_PER_IMAGE = 3
_FEWEST_PARTS = 8
_BLOCKS = 20
_AVERAGINGS = (1, 2, 3)
_ALPHAS = (0.03, 0.1, 0.3, 1.0)
_OTHERS: tuple[Detector, ...] = (Padim(), Gaussian(), PatchCore())
_STANDARD_ERRORS = 3.0  # of the best of some fifty settings, 5 in 100 are so much better by chance (Bonferroni)
_LARGEST = [number for number in range(DIFFERENT) if kind_and_share(number)[1] >= SHARES[-2]]


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting and its result.

    Attributes:
        wins: Share of the defects in images of each held-out part that score above good images of each, (p, p).
    """

    backbone: Backbone
    divide_brightness: bool
    detector: Detector
    wins: Float32

    @property
    def auroc(self) -> float:
        """AUROC of held-out good images against the same with synthetic defects (Mann and Whitney 1947)."""
        return float(self.wins.mean())

    def beats(self, other: Trial) -> bool:
        """Whether the AUROC is higher by more than chance, by the jackknife over parts (Efron 1982)."""
        count, gain = len(self.wins), self.wins.astype(np.float64) - other.wins
        without = gain.sum() - gain.sum(axis=0) - gain.sum(axis=1) + np.diag(gain)
        deviation = without / (count - 1) ** 2 - gain.mean()
        error = sqrt((count - 1) / count * float(np.square(deviation).sum()))
        return float(gain.mean()) > _STANDARD_ERRORS * error


@dataclass(frozen=True)
class TunedChoice:
    """The choice, and all that was tried.

    Attributes:
        best: The setting of the highest AUROC, or what was asked for if that is not better by more than chance.
        trials: All settings, in the order in which they were tried.
        complete: The time was enough for all.
    """

    best: Trial
    trials: tuple[Trial, ...]
    complete: bool

    def record(self) -> ChoiceRecord:
        """The choice as the manifest holds it."""
        highest = max(trial.auroc for trial in self.trials)
        reason = (
            f"AUROC {self.best.auroc:.4f} on held-out good images against the same with synthetic defects; "
            f"{len(self.trials)} settings were tried, the highest reached {highest:.4f}"
            + (", which may be chance" if self.best.auroc < highest else "")
        )
        trials = tuple(
            TrialRecord(
                backbone=f"{trial.backbone.label} at {'x'.join(map(str, trial.backbone.input_size))}",
                divide_brightness=trial.divide_brightness,
                detector=detector_spec(trial.detector),
                auroc=trial.auroc,
            )
            for trial in self.trials
        )
        return ChoiceRecord(reason=reason, complete=self.complete, trials=trials)


def tune(
    images: Images, candidates: Sequence[Backbone], settings: Settings, time_budget_s: float, progress: Progress
) -> tuple[Backbone, Settings]:
    """The best backbone and settings for these images; backbones may differ in the size of their input."""
    largest = max((backbone.input_size for backbone in candidates), key=prod)
    names, frames = sample(images, settings.preprocess.of_size(*largest))
    choice = best_trial(
        frames,
        candidates,
        parts=_parts(names, frames, images, settings),
        time_budget_s=time_budget_s,
        threads=settings.threads,
        progress=progress,
    )
    best = choice.best
    return best.backbone, replace(
        settings,
        preprocess=settings.preprocess.of_size(*best.backbone.input_size),
        detector=best.detector,
        divide_brightness=best.divide_brightness,
        choice=choice.record(),
    )


def sample(images: Images, preprocess: Preprocess) -> tuple[list[str], list[Image]]:
    """Names and preprocessed frames of up to ``SAMPLE`` images, in their order.

    Each is as likely as any other (reservoir sampling, Vitter 1985).
    """
    random = np.random.default_rng(0)
    kept: list[tuple[int, str, Image]] = []
    for seen, (name, image) in enumerate(images):
        if seen < SAMPLE:
            kept.append((seen, name, preprocess(image)))
        elif (index := int(random.integers(seen + 1))) < SAMPLE:
            kept[index] = (seen, name, preprocess(image))
    kept.sort(key=lambda each: each[0])
    return [name for _, name, _ in kept], [frame for *_, frame in kept]


def _parts(names: Sequence[str], frames: Sequence[Image], images: Images, settings: Settings) -> Sequence[object]:
    """The part that each image shows; of a video, a twentieth of its length each."""
    if settings.part_of is not None:
        return [settings.part_of(name) for name in names]
    if images.sequential:
        return [index * _BLOCKS // len(names) for index in range(len(names))]
    found = near_copies([fingerprint(frame) for frame in frames]).parts
    return names if found is None else found.tolist()


def best_trial(  # noqa: PLR0913 - what to choose from, and how long
    frames: Sequence[Image],
    backbones: Sequence[Backbone],
    *,
    parts: Sequence[object],
    time_budget_s: float,
    threads: int,
    progress: Progress,
    clock_s: Callable[[], float] = time.monotonic,
) -> TunedChoice:
    """Compare backbones, brightness, averaging, alpha and location of mean-shift; then the other detectors.

    Args:
        frames: A sample of the good images, preprocessed, of one size.
        backbones: Candidates; the first is the default.
        parts: The part that each frame shows; what is separated shows others than what is learned from.
        time_budget_s: After this time no new features are computed; the best of what was tried is chosen.
        threads: Of the networks.
        progress: Receives the number of candidates done.
        clock_s: Monotonic clock.

    Raises:
        DatasetError: Too few frames.
    """
    if len(set(parts)) < _FEWEST_PARTS:
        raise DatasetError(
            what=f"{len(frames)} good images of {len(set(parts))} parts are too few to choose settings from",
            remedy="give at least 8, better a hundred; or leave out --auto",
        )
    trial_frames = _TrialFrames.of(frames, parts)
    until_s = clock_s() + time_budget_s
    sources = [(backbone, divide) for backbone in backbones for divide in (False, True)]
    steps = len(sources) + 1
    trials: list[Trial] = []
    for number, source in enumerate(sources):
        if trials and clock_s() > until_s:
            return TunedChoice(_best(trials), tuple(trials), complete=False)
        trials += _mean_shifts(trial_frames, *source, threads)
        progress("choosing", number + 1, steps)
    complete = clock_s() <= until_s
    if complete:
        best = _best(trials)
        trials += _other_detectors(trial_frames, best.backbone, best.divide_brightness, threads)
    progress("choosing", steps, steps)
    return TunedChoice(_best(trials), tuple(trials), complete)


def _best(trials: Sequence[Trial]) -> Trial:
    """The highest, if it is better than the defaults with what was asked for by more than chance; else these."""
    default = next((trial for trial in trials if trial.detector == MeanShift()), trials[0])
    highest = max(trials, key=lambda trial: trial.auroc)
    return highest if highest.beats(default) else default


@dataclass(frozen=True)
class _TrialFrames:
    """Frames to learn from, and frames to separate; ``by_part`` averages over those of each part, (p, m)."""

    learned: list[Image]
    good: list[Image]
    damaged: list[Image]
    by_part: Float32

    @classmethod
    def of(cls, frames: Sequence[Image], parts: Sequence[object]) -> _TrialFrames:
        random = np.random.default_rng(0)
        different = random.permutation(len(dict.fromkeys(parts))).tolist()
        number_of = dict(zip(dict.fromkeys(parts), different, strict=True))
        rows = [number_of[part] for part in parts]
        held = len(different) // _HELD_OUT_SHARE
        unseen = [frame for frame, row in zip(frames, rows, strict=True) if row < held]
        good = [augmented(frame, random) for frame in unseen]
        damaged = [
            augmented(with_defect(frame, _LARGEST[turn % len(_LARGEST)], random, other=unseen[number - 1]), random)
            for number, frame in enumerate(unseen)
            for turn in range(number * _DEFECTS_PER_IMAGE, (number + 1) * _DEFECTS_PER_IMAGE)
        ]
        learned = [frame for frame, row in zip(frames, rows, strict=True) if row >= held]
        of_part = np.array([row for row in rows if row < held]) == np.arange(held)[:, None]
        return cls(learned, good, damaged, np.asarray(of_part / of_part.sum(axis=1, keepdims=True), np.float32))

    def features(self, backbone: Backbone, detector: Detector, *, divide: bool, threads: int) -> list[Float32]:
        """Reduced features of the three groups, (n, d, h, w) each."""
        network = feature_network(backbone, detector, divide_brightness=divide).SerializeToString()
        resize = Preprocess(*backbone.input_size).resize
        with OnnxRuntimeEngine(network, threads) as engine:
            return [
                np.stack([engine.reduced(resize(frame)) for frame in each])
                for each in (self.learned, self.good, self.damaged)
            ]


def _mean_shifts(trial_frames: _TrialFrames, backbone: Backbone, divide: bool, threads: int) -> list[Trial]:  # noqa: FBT001
    learned, good, damaged = trial_frames.features(backbone, MeanShift(averaging=1), divide=divide, threads=threads)
    compared = _compare(learned, good, damaged, trial_frames.by_part)
    return [Trial(backbone, divide, detector, wins) for detector, wins in compared]


def _other_detectors(
    trial_frames: _TrialFrames,
    backbone: Backbone,
    divide: bool,  # noqa: FBT001
    threads: int,
) -> list[Trial]:
    """The other methods, with the backbone and brightness that suit mean-shift best."""
    trials = []
    for detector in _OTHERS:
        learned, good, damaged = trial_frames.features(backbone, detector, divide=divide, threads=threads)
        with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder), learned.shape[1:]) as store:
            for each in learned:
                store.append(each)
            head = detector.fit(store, Folds([range(len(learned))]), backbone.level_channels).head
        trials.append(Trial(backbone, divide, detector, _wins(head, good, damaged, trial_frames.by_part)))
    return trials


def _compare(
    learned: Float32, good: Float32, damaged: Float32, by_part: Float32
) -> Iterator[tuple[MeanShift, Float32]]:
    for averaging in _AVERAGINGS:
        if averaging > min(learned.shape[2:]):
            return
        known, low, high = (_averaged(each, averaging) for each in (learned, good, damaged))
        local = Moments.of(by_location(known))
        for alpha in _ALPHAS:
            detector = MeanShift(alpha=alpha, averaging=averaging)
            yield detector, _wins(detector.head(local), low, high, by_part)
        shared = MeanShift(alpha=1.0, averaging=averaging, location="shared")
        yield shared, _wins(shared.head(Moments.of(across_locations(known))), low, high, by_part)


def _wins(head: Head, good: Float32, damaged: Float32, by_part: Float32) -> Float32:
    """See `Trial`, ties counted half; the defects in an image are neighbours in ``damaged``."""
    low, high = head.scores(good).score, head.scores(damaged).score
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    return np.asarray(by_part @ wins.reshape(len(low), -1, len(low)).mean(axis=1) @ by_part.T, np.float32)


def _averaged(features: Float32, window: int) -> Float32:
    view = np.lib.stride_tricks.sliding_window_view(features, (window, window), axis=(2, 3))
    averaged: Float32 = view.mean(axis=(4, 5), dtype=np.float32)
    return averaged
