"""Presets on the command line: what they set, and what replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calibration.bundle.bundle import open_bundle
from calibration.workstation.presets import PRESETS
from tests.support.outcome import assert_refused

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
