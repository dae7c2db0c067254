"""Files with any names, on terminals with any letters: what was calibrated and evaluated is never lost."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

from calibration.bundle.bundle import open_bundle
from calibration.imaging.image_files import read_mask
from calibration.imaging.utf8_name import utf8_name
from calibration.workstation.cli.image_names import names_in, write_names
from calibration.workstation.dataset import good_images
from tests.support.washers import SIDE, save, washer

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

ODD = b"=1\xff\x1b[2J\xe2\x80\xae$\\frac$".decode("utf-8", "surrogateescape")
"""Begins as a formula; not UTF-8; steers a terminal; a broken formula of TeX."""


def calibrate(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from calibration.workstation.cli.main import main; main()"
    return subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"},
        capture_output=True,
        check=False,
    )


def saved(folder: Path, images: list[Image]) -> Path:
    """As files with odd names in a folder of any name, which OpenCV itself cannot write."""
    plain = save(Path(tempfile.mkdtemp(dir=folder.parents[1])), images)
    for path in plain.iterdir():
        path.rename(path.with_name(f"{ODD}{path.name}"))
    return plain.rename(folder)


@pytest.mark.slow
def test_fit_and_evaluate_finish_whatever_the_names_are(tmp_path: Path) -> None:
    good = saved(tmp_path / ODD, [washer(number) for number in range(24)])
    (good / f"{ODD}damaged\n.png").write_bytes(b"no image")
    bundle, scores, plots = (tmp_path / f"{name}{ODD}" for name in ("bundle", "scores", "plots"))
    fitted = calibrate("fit", good, "-o", bundle, "--size", str(SIDE), "--suspicious", tmp_path / f"names{ODD}")
    assert fitted.returncode == 0, fitted.stderr
    assert b"\x1b" not in fitted.stdout + fitted.stderr
    assert open_bundle(bundle).manifest.images.count == 24

    labelled = tmp_path / f"set{ODD}"
    labelled.mkdir()
    saved(labelled / "good", [*(washer(number) for number in range(100, 103)), washer(3, scratched=True)])
    saved(labelled / ODD, [washer(number, scratched=True) for number in range(4)])
    json_file = tmp_path / f"figures{ODD}"
    options = ("--scores", scores, "--plots", plots, "--json", json_file)
    evaluated = calibrate("evaluate", bundle, labelled, *options)
    assert evaluated.returncode == 0, evaluated.stderr
    assert b"\x1b" not in evaluated.stdout + evaluated.stderr
    assert (plots / "false_rejects.png").exists()
    assert json_file.exists()
    with scores.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["label"] for row in rows} == {"good", r"'=1\udcff\x1b[2J\u202e$\frac$"}
    assert all(value.isprintable() for row in rows for value in row.values())
    for command in ("verify", "report"):
        ended = calibrate(command, bundle, *(("-o", tmp_path / f"{ODD}.html") if command == "report" else ()))
        assert ended.returncode == 0, ended.stderr


def test_a_video_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    video = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(washer(1)[:48, :64].copy())
    writer.release()
    odd = video.rename(tmp_path / f"{ODD}.avi")
    assert len(list(good_images(odd))) == 3


def test_a_mask_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    save(tmp_path, [washer(1)])
    (mask,) = tmp_path.iterdir()
    assert read_mask(mask.rename(tmp_path / f"{ODD}.png")).any()


def test_opencv_gets_a_name_for_every_file(tmp_path: Path) -> None:
    (tmp_path / ODD).write_text("content")
    with utf8_name(tmp_path / ODD) as name, open(name, encoding="ascii") as file:  # noqa: PTH123 - as OpenCV does
        assert file.read() == "content"
    with utf8_name(tmp_path / f"{ODD}nowhere") as name:
        assert name == ""
    with utf8_name("plain.avi") as name:
        assert name == "plain.avi"


def test_names_that_are_not_utf_8_are_written_and_read_again(tmp_path: Path) -> None:
    names = ["a\udcff.png", "b c.png"]
    write_names(tmp_path / "names", names)
    assert names_in(tmp_path / "names") == set(names)
