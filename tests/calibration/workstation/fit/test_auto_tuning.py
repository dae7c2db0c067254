"""Settings chosen from good images alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import open_bundle
from calibration.detectors.contract import detector_spec
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.errors import DatasetError
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.auto_tuning import SAMPLE, Trial, _parts, _TrialFrames, best_trial, sample, tune
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused
from tests.support.photographed import save_photographed
from tests.support.washers import Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

SIDE = 64


def frames(count: int) -> list[Image]:
    return [washer(number, side=SIDE) for number in range(count)]


def test_the_choice_is_the_best_of_what_was_tried_or_the_default_within_a_tie() -> None:
    choice = best_trial(
        frames(32),
        [filterbank_backbone(SIDE, SIDE)],
        parts=range(32),
        time_budget_s=60,
        threads=1,
        progress=lambda *_: None,
    )
    assert choice.complete
    tried = {(trial.divide_brightness, detector_spec(trial.detector)) for trial in choice.trials}
    assert len(tried) == len(choice.trials) == 2 * 15 + 3
    assert all(0.0 <= trial.auroc <= 1.0 for trial in choice.trials)
    highest = max(choice.trials, key=lambda trial: trial.auroc)
    assert choice.best is highest or (choice.best.detector == MeanShift() and not highest.beats(choice.best))
    assert choice.best.auroc > 0.6


@pytest.mark.slow
def test_another_detector_is_chosen_where_it_finds_defects_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean-shift is given features of nothing, so that it separates nothing."""
    of_all = _TrialFrames.features

    def blind(compared: _TrialFrames, *source: Any, **how: Any) -> Any:  # noqa: ANN401
        features = of_all(compared, *source, **how)
        if isinstance(source[1], MeanShift):
            noise = np.random.default_rng(0)
            return [noise.normal(size=each.shape).astype(np.float32) for each in features]
        return features

    monkeypatch.setattr(_TrialFrames, "features", blind)
    choice = best_trial(
        frames(200),
        [filterbank_backbone(SIDE, SIDE)],
        parts=range(200),
        time_budget_s=60,
        threads=1,
        progress=lambda *_: None,
    )
    assert choice.best.detector == Padim()
    assert choice.record().trials[-3].detector == "padim"


def made_trial(wins: NDArray[np.float64]) -> Trial:
    return Trial(filterbank_backbone(SIDE, SIDE), divide_brightness=False, detector=MeanShift(), wins=wins.astype("f4"))


def test_what_is_better_by_chance_does_not_beat_what_was_asked_for() -> None:
    """Fifty settings that are as good as the default, each on its own noise: the best of them is no better."""
    random = np.random.default_rng(0)
    beaten = 0
    for _ in range(40):
        default = made_trial(random.uniform(0, 1, (40, 40)))
        shared = random.uniform(0, 1, (40, 40))
        others = [made_trial((shared + random.uniform(0, 1, (40, 40))) / 2) for _ in range(50)]
        beaten += max(others, key=lambda trial: trial.auroc).beats(default)
    assert beaten <= 6


def test_what_is_clearly_better_does() -> None:
    random = np.random.default_rng(0)
    noise = random.uniform(-0.2, 0.2, (40, 40))
    default = made_trial(0.5 + noise)
    assert made_trial(0.6 + noise + random.uniform(-0.1, 0.1, (40, 40))).beats(default)
    assert not default.beats(default)


def test_one_image_alone_decides_nothing() -> None:
    default = made_trial(np.full((40, 40), 0.5))
    wins = np.full((40, 40), 0.5)
    wins[7] = 1.0
    assert made_trial(wins).auroc > default.auroc
    assert not made_trial(wins).beats(default)


@pytest.mark.parametrize("sides", [(64, 96), (96, 64)])
def test_inputs_of_several_sizes_are_compared(monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int]) -> None:
    monkeypatch.setattr(Trial, "beats", lambda *_: True)
    candidates = [filterbank_backbone(side, side) for side in sides]
    settings = Settings(Preprocess(64, 64), threads=1)
    backbone, chosen = tune(Drawn(frames(24)), candidates, settings, 60, lambda *_: None)
    assert chosen.choice is not None
    assert {trial.backbone for trial in chosen.choice.trials} == {"filterbank at 64x64", "filterbank at 96x96"}
    assert (chosen.preprocess.height, chosen.preprocess.width) == backbone.input_size


def test_a_detector_is_described_as_the_benchmark_takes_it() -> None:
    assert detector_spec(MeanShift()) == "mean_shift"
    assert detector_spec(MeanShift(alpha=0.1, location="shared")) == "mean_shift:alpha=0.1,location=shared"


def test_no_part_is_both_learned_from_and_separated() -> None:
    given = frames(40)
    divided = _TrialFrames.of(given, [number // 4 for number in range(40)])
    learned = [next(number for number, frame in enumerate(given) if frame is each) for each in divided.learned]
    assert len(learned) == 32
    assert len({number // 4 for number in learned}) == 8
    assert len(divided.good) == 8
    np.testing.assert_allclose(divided.by_part.sum(axis=1), 1)
    assert divided.by_part.shape == (2, 8)


@pytest.mark.parametrize(
    ("sequential", "part_of", "expected"),
    [
        (True, None, [number // 2 for number in range(40)]),
        (False, lambda name: name[-1], [name[-1] for name in map(str, range(40))]),
        (False, None, [str(number) for number in range(40)]),
    ],
    ids=["video", "known parts", "different parts"],
)
def test_the_parts_of_a_sample(
    *, sequential: bool, part_of: Callable[[str], str] | None, expected: list[object]
) -> None:
    drawn = Drawn(frames(40), sequential=sequential)
    settings = Settings(Preprocess(SIDE, SIDE), part_of=part_of)
    assert _parts([str(number) for number in range(40)], frames(40), drawn, settings) == expected


def test_photographs_of_the_same_part_are_found(tmp_path: Path) -> None:
    images = good_images(save_photographed(tmp_path / "parts", 0, 12, 3))
    names, taken = sample(images, Preprocess(SIDE, SIDE))
    assert len(set(_parts(names, taken, images, Settings(Preprocess(SIDE, SIDE))))) == 12


def test_when_the_time_is_over_what_was_tried_decides() -> None:
    ticks = iter(range(0, 1000, 100))
    choice = best_trial(
        frames(16),
        [filterbank_backbone(SIDE, SIDE)],
        parts=range(16),
        time_budget_s=50,
        threads=1,
        progress=lambda *_: None,
        clock_s=lambda: float(next(ticks)),
    )
    assert not choice.complete
    assert {trial.divide_brightness for trial in choice.trials} == {False}


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DatasetError, match="too few to choose"):
        best_trial(
            frames(7),
            [filterbank_backbone(SIDE, SIDE)],
            parts=range(7),
            time_budget_s=1,
            threads=1,
            progress=lambda *_: None,
        )


def test_a_sample_is_bounded_and_takes_from_everywhere() -> None:
    class Many:
        def __iter__(self) -> Iterator[tuple[str, Image]]:
            for number in range(2 * SAMPLE):
                yield str(number), np.full((SIDE, SIDE, 3), number % 256, np.uint8)

    names, taken = sample(Many(), Preprocess(SIDE, SIDE))  # type: ignore[arg-type]
    assert names == sorted(names, key=int)
    assert [int(name) % 256 for name in names] == [int(frame[0, 0, 0]) for frame in taken]
    assert len(taken) == SAMPLE
    assert len({int(frame[0, 0, 0]) for frame in taken}) > 150


@pytest.mark.slow
def test_the_bundle_says_what_was_tried_and_why_it_was_chosen(command: Command, tmp_path: Path) -> None:
    save(tmp_path / "good", frames(24))
    assert command("fit", tmp_path / "good", "--auto", "--size", SIDE, "--out", tmp_path / "bundle").code == 0
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.choice is not None
    assert manifest.choice.complete
    best = next(trial for trial in manifest.choice.trials if f"{trial.auroc:.4f}" in manifest.choice.reason)
    assert best.auroc > 0.55
    assert any(trial.detector.startswith(manifest.detector.name) for trial in manifest.choice.trials)
    assert {"padim", "gaussian", "patchcore"} <= {trial.detector for trial in manifest.choice.trials}


@pytest.mark.parametrize("option", ["--alpha 0.1", "--averaging 2", "--divide-brightness", "--detector padim"])
def test_what_auto_chooses_cannot_be_given_as_well(command: Command, tmp_path: Path, option: str) -> None:
    save(tmp_path / "good", frames(12))
    outcome = command("fit", tmp_path / "good", "--auto", *option.split(), "--size", SIDE, "--out", tmp_path / "bundle")
    assert_refused(outcome, f"--auto chooses what {option.split(maxsplit=1)[0]} would say", "leave out")
