"""Presets on the command line: what they set, and what replaces it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.bundle.bundle import open_bundle
from calibration.workstation.presets import PRESETS
from tests.support.outcome import assert_refused
from tests.support.washers import washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]


def test_a_preset_sets_size_and_method_and_options_replace_them(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    begin = ("fit", good_folder, "--preset", "padim2021", "--backbone", "filterbank")
    assert command(*begin, "--size", "64", "--out", tmp_path / "small").code == 0
    assert command(*begin, "--detector", "padim:dimensions=5", "--out", tmp_path / "five").code == 0
    small, five = (open_bundle(tmp_path / name).manifest for name in ("small", "five"))
    assert (small.detector.name, five.detector.name) == ("padim", "padim")
    assert (small.preprocess.height, small.preprocess.width) == (64, 64)
    assert (five.preprocess.height, five.preprocess.width) == PRESETS["padim2021"].size
    assert five.detector.parameters["dimensions"] == 5
    assert (small.preprocess.crop, five.preprocess.crop) == (0.875, 0.875)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.stages])
def test_a_preset_without_weights_on_this_machine_says_so_before_work(
    command: Command, good_folder: Path, tmp_path: Path, name: str
) -> None:
    preset = PRESETS[name]
    missing = tmp_path / "none.safetensors"
    outcome = command("fit", good_folder, "--preset", name, "--weights", missing, "--out", tmp_path / "out")
    assert_refused(outcome, "none.safetensors", "")
    assert preset.stages.split(",")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_middle_of_images_of_several_sizes_is_compared(command: Command, tmp_path: Path) -> None:
    """Score maps are laid over the middle: no pixel of a mask outside of it is counted."""
    for kind, count in (("good", 20), ("scratch", 4)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(count):
            rows, columns = (64, 64 + 8 * (number % 3))
            picture = cv2.resize(washer(number, scratched=kind == "scratch"), (columns, rows))
            cv2.imwrite(str(tmp_path / "set" / kind / f"{number}.jpg"), picture)
    mask = np.zeros((64, 64), np.uint8)
    mask[:6] = 255
    cv2.imwrite(str(tmp_path / "set/scratch/0.png"), mask)
    found = tmp_path / "found.json"
    options = ("--detector", "padim:dimensions=9", "--size", "64", "--crop", "0.75", "--images", "10", "--folds", "2")
    assert command("benchmark", tmp_path / "set", *options, "--json", found).code == 0
    run = json.loads(found.read_text())["runs"][0]
    assert run["size"] == "64x64 of 0.75"
    assert run["pixel_auroc"] is None
