"""Settings chosen from good images alone: which of them tells good parts from the same with a defect put in?

Hermann et al. 2022 leave open "how to derive those hyperparameters directly from data". Here: learn from three quarters
of a sample of the good images, put synthetic defects into the last quarter, and compare. The last quarter is varied a
little, with and without defects: on the line parts lie and lamps shine differently from the day they were taught.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from calibration.augmentation import varied
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.partial import all_together, by_location
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError
from calibration.manifest import ChoiceRecord, TrialRecord
from calibration.moments import Moments
from calibration.network import feature_network
from calibration.synthetic import with_defect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.backbone import Backbone
    from calibration.dataset import Images
    from calibration.pipeline import Progress, Settings
    from calibration.preprocess import Image, Preprocess

    Float32 = NDArray[np.float32]

SAMPLE = 400
_HELD_OUT_SHARE = 4
_DEFECTS_PER_IMAGE = 3
_AVERAGINGS = (1, 2, 3)
_ALPHAS = (0.03, 0.1, 0.3, 1.0)
# Differences below this over the root of the held-out images are chance (two draws of 100 magnetic tiles ranked the
# best settings differently by up to 0.009); then the setting that was asked for stays.
_TIE = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting and what it reached.

    Attributes:
        auroc: Of held-out good images against the same with synthetic defects.
    """

    backbone: str
    divide_brightness: bool
    detector: MeanShift
    auroc: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, what else was tried, and whether the time ran out before all were.

    Attributes:
        best: The first setting within a tie of the highest AUROC.
        trials: All, in the order in which they were tried.
        complete: Everything was tried within the time.
    """

    best: Trial
    trials: tuple[Trial, ...]
    complete: bool

    def record(self) -> ChoiceRecord:
        """For the manifest."""
        highest = max(trial.auroc for trial in self.trials)
        reason = (
            f"AUROC {self.best.auroc:.4f} on held-out good images against the same with synthetic defects; "
            f"{len(self.trials)} settings were tried, the highest reached {highest:.4f}"
        )
        trials = tuple(
            TrialRecord(
                backbone=trial.backbone,
                divide_brightness=trial.divide_brightness,
                alpha=trial.detector.alpha or 1.0,
                averaging=trial.detector.averaging,
                location=trial.detector.location,
                auroc=trial.auroc,
            )
            for trial in self.trials
        )
        return ChoiceRecord(reason=reason, complete=self.complete, trials=trials)


def chosen(
    images: Images, candidates: Sequence[Backbone], settings: Settings, time_budget_s: float, progress: Progress
) -> tuple[Backbone, Settings]:
    """The best backbone and settings for these images."""
    frames = sample(images, settings.preprocess)
    choice = choose(frames, candidates, time_budget_s=time_budget_s, threads=settings.threads, progress=progress)
    best = choice.best
    network = next(candidate for candidate in candidates if candidate.name == best.backbone)
    return network, replace(
        settings, detector=best.detector, divide_brightness=best.divide_brightness, choice=choice.record()
    )


def sample(images: Images, preprocess: Preprocess) -> list[Image]:
    """Up to ``SAMPLE`` frames, preprocessed, each as likely as any other (reservoir sampling, Vitter 1985)."""
    random = np.random.default_rng(0)
    frames: list[Image] = []
    for seen, (_, image) in enumerate(images):
        if seen < SAMPLE:
            frames.append(preprocess(image))
        elif (place := int(random.integers(seen + 1))) < SAMPLE:
            frames[place] = preprocess(image)
    return frames


def choose(  # noqa: PLR0913 - what to choose from, and how long
    frames: Sequence[Image],
    backbones: Sequence[Backbone],
    *,
    time_budget_s: float,
    threads: int,
    progress: Callable[[str, int, int], None],
    clock_s: Callable[[], float] = time.monotonic,
) -> Choice:
    """Compare backbones, brightness, averaging, alpha and location.

    Args:
        frames: A sample of the good ones, preprocessed, of one size.
        backbones: To choose from; the first is the default.
        time_budget_s: After this no new features are computed; what was tried until then decides.
        threads: Of the networks.
        progress: Told (step, done, total).
        clock_s: Monotonic clock.

    Raises:
        DatasetError: Too few frames.
    """
    held = len(frames) // _HELD_OUT_SHARE
    if held < 2:  # noqa: PLR2004
        raise DatasetError(
            what=f"{len(frames)} good images are too few to choose settings from",
            remedy="give at least 8, better a hundred; or leave --auto out",
        )
    random = np.random.default_rng(0)
    order = random.permutation(len(frames))
    learnt, unseen = [frames[i] for i in order[held:]], [frames[i] for i in order[:held]]
    good = [varied(frame, random) for frame in unseen]
    damaged = [
        varied(with_defect(frame, number * _DEFECTS_PER_IMAGE + turn, random), random)
        for number, frame in enumerate(unseen)
        for turn in range(_DEFECTS_PER_IMAGE)
    ]
    until_s = clock_s() + time_budget_s
    trials: list[Trial] = []
    sources = [(backbone, divide) for backbone in backbones for divide in (False, True)]
    tried = 0
    for number, (backbone, divide) in enumerate(sources):
        if trials and clock_s() > until_s:
            break
        features = [_features(backbone, each, divide=divide, threads=threads) for each in (learnt, good, damaged)]
        for detector, auroc in _compare(*features):
            trials.append(Trial(backbone.name, divide, detector, auroc))
        tried += 1
        progress("choosing", number + 1, len(sources))
    highest = max(trial.auroc for trial in trials)
    best = next(trial for trial in _by_preference(trials) if trial.auroc >= highest - _TIE / sqrt(held))
    return Choice(best, tuple(trials), tried == len(sources))


def _by_preference(trials: Sequence[Trial]) -> list[Trial]:
    """The defaults first."""
    default = MeanShift()
    return sorted(trials, key=lambda trial: (trial.detector != default, trial.divide_brightness))


def _features(backbone: Backbone, frames: Sequence[Image], *, divide: bool, threads: int) -> Float32:
    network = feature_network(backbone, MeanShift(averaging=1), divide_brightness=divide)
    with OnnxRuntimeEngine(network.SerializeToString(), threads) as engine:
        return np.stack([engine.reduced(frame) for frame in frames])


def _compare(learnt: Float32, good: Float32, damaged: Float32) -> Iterator[tuple[MeanShift, float]]:
    for averaging in _AVERAGINGS:
        if averaging > min(learnt.shape[2:]):
            return
        sets = [_averaged(each, averaging) for each in (learnt, good, damaged)]
        local = Moments.of(by_location(sets[0]))
        for alpha in _ALPHAS:
            detector = MeanShift(alpha=alpha, averaging=averaging)
            yield detector, _auroc(detector, local, *sets[1:])
        shared = MeanShift(alpha=1.0, averaging=averaging, location="shared")
        yield shared, _auroc(shared, Moments.of(all_together(sets[0])), *sets[1:])


def _auroc(detector: MeanShift, moments: Moments, good: Float32, damaged: Float32) -> float:
    head = detector.head(moments)
    low, high = head.scores(good).score, head.scores(damaged).score
    # The chance that a damaged image scores above a good one, ties counted half (Mann and Whitney).
    above = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    return float(above)


def _averaged(features: Float32, window: int) -> Float32:
    view = np.lib.stride_tricks.sliding_window_view(features, (window, window), axis=(2, 3))
    averaged: Float32 = view.mean(axis=(4, 5), dtype=np.float32)
    return averaged
