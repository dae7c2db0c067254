"""An image that does not belong to the good ones: it is named with figures, and the advice is a command that helps."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.bundle.bundle import open_bundle
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

FIRST, COUNT, STRAY = 400, 40, "empty belt.png"


@pytest.fixture
def with_stray(tmp_path: Path) -> Path:
    """Forty washers, and a picture of the empty belt."""
    folder = save(tmp_path / "mixed", [washer(FIRST + number) for number in range(COUNT)])
    belt = np.clip(np.random.default_rng(0).normal((52, 60, 58), 3, (64, 64, 3)), 0, 255).astype(np.uint8)
    save(tmp_path / "belt", [belt])
    (tmp_path / "belt/000.png").rename(folder / STRAY)
    return folder


def scratched_found(bundle: Bundle) -> float:
    """Share of scratched washers above the threshold."""
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        scores = [engine(bundle.preprocess(washer(number, scratched=True))).score for number in range(100, 120)]
    return float(np.mean(np.array(scores) > bundle.working_point.threshold))


def test_following_the_advice_as_printed_is_as_if_the_stray_had_never_been_there(
    command: Command, with_stray: Path, tmp_path: Path
) -> None:
    outcome = command("fit", with_stray, "-o", tmp_path / "b", "--size", "64")
    assert f"1 suspicious, unlike the other good images: {with_stray}/{STRAY}" in outcome.words
    assert re.search(
        rf"the threshold is [\d.,]+ \(\d+% of the drawn defects found\); without .*\({STRAY}, \d", outcome.words
    )
    assert "calibrate again" not in outcome.out  # nobody is asked in a pipe
    (advice,) = re.findall(r"to leave out what is not a good part: (.*)", outcome.out)
    program, *arguments = shlex.split(advice)
    assert program == "shiftwatch-calibrate"
    assert command(*arguments).code == 0
    followed = open_bundle(tmp_path / "b-2")
    assert followed.manifest.images.left_out == (f"{with_stray}/{STRAY}",)

    (with_stray / STRAY).unlink()
    command("fit", with_stray, "-o", tmp_path / "clean", "--size", "64")
    clean = open_bundle(tmp_path / "clean")
    assert followed.working_point == clean.working_point
    assert scratched_found(followed) == scratched_found(clean) == 1.0


def test_what_more_good_images_than_promised_above_the_threshold_would_mean(
    command: Command, with_stray: Path, tmp_path: Path
) -> None:
    belt = read_image(with_stray / STRAY)
    for number in (1, 2):
        assert cv2.imwrite(str(with_stray / f"belt{number}.png"), np.roll(belt, 8 * number, axis=0))
    outcome = command("fit", with_stray, "-o", tmp_path / "b", "--size", "64")
    assert "3 of 43 good images are above the threshold: if parts like these are good, 1.5% to" in outcome.words


def test_the_report_that_is_advised_can_be_written(command: Command, with_stray: Path, tmp_path: Path) -> None:
    outcome = command("fit", with_stray, "-o", tmp_path / "b", "--size", "64")
    (advice,) = re.findall(r"look at them: (.*)", outcome.out)
    assert command(*shlex.split(advice)[1:]).code == 0
    assert STRAY in (tmp_path / "b.report.html").read_text()


def test_images_are_left_out_by_name_and_by_file(command: Command, good_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("003.png\n")
    leave_out = [
        "--leave-out",
        "001.png",
        "--leave-out",
        f"{good_folder}/002.png",
        "--leave-out",
        tmp_path / "names.txt",
    ]
    command("fit", good_folder, "-o", tmp_path / "b", "--size", "64", *leave_out)
    left_out = open_bundle(tmp_path / "b").manifest.images.left_out
    assert left_out == tuple(f"{good_folder}/00{number}.png" for number in (1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "bundles"), [("y", ["b", "b-2"]), ("", ["b"])])
def test_at_a_terminal_a_person_is_asked(with_stray: Path, tmp_path: Path, answer: str, bundles: list[str]) -> None:
    arguments = ["fit", str(with_stray), "-o", str(tmp_path / "b"), "--size", "64"]
    code = f"import sys; sys.argv[1:] = {arguments!r}; from calibration.workstation.cli.main import main; main()"
    terminal, other_end = pty.openpty()
    fit = subprocess.Popen(  # noqa: S603 - our own command
        ["/usr/bin/timeout", "120", sys.executable, "-c", code], stdin=other_end, stdout=other_end, stderr=other_end
    )
    os.close(other_end)
    shown, asked = "", 0
    while True:
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if shown.count("[y/n]") > asked:
            asked += 1
            os.write(terminal, f"{answer if asked == 1 else ''}\n".encode())
    os.close(terminal)
    assert fit.wait() == 0
    assert asked == 1
    assert [name for name in ("b", "b-2", "b-3") if (tmp_path / name).exists()] == bundles
    left_out = open_bundle(tmp_path / bundles[-1]).manifest.images.left_out
    assert left_out == ((f"{with_stray}/{STRAY}",) if answer else ())
