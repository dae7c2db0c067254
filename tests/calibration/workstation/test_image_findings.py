"""``fit`` says what it did to the images: in its summary, the report, the Python API, and over Dask alike."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np

import calibration
from calibration.backbones.backbone import filterbank_backbone
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network, reduced_shape
from calibration.workstation.dataset import ImageFiles, good_images
from calibration.workstation.evaluation.benchmark import Candidate, measured, tasks
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.fit import dask_tasks
from calibration.workstation.fit.extraction import Extraction
from calibration.workstation.image_findings import image_findings
from calibration.workstation.labelled_images import labelled_images
from calibration.workstation.settings import Settings
from tests.calibration.imaging.test_image_files import with_orientation
from tests.support.washers import SIDE, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.support.outcome import Outcome


def findings(folder: Path) -> dict[str, list[str]]:
    """What is found, with the names of the files without their folder."""
    images = good_images(folder)
    for _ in images:
        pass
    return {each.what: [name.replace(f"{folder}/", "") for name in each.images] for each in image_findings(images)}


def test_usual_images_give_no_findings(good_folder: Path) -> None:
    assert findings(good_folder) == {}


def test_copies_count_once_and_are_named(tmp_path: Path) -> None:
    save(tmp_path, [washer(number) for number in range(4)])
    shutil.copy(tmp_path / "001.png", tmp_path / "001 (1).png")
    shutil.copy(tmp_path / "001.png", tmp_path / "copy.png")
    assert len(good_images(tmp_path)) == 4
    assert findings(tmp_path) == {
        "identical copies of another image, counted once": [
            "001.png is a copy of 001 (1).png",
            "copy.png is a copy of 001 (1).png",
        ]
    }


def test_leaving_out_an_image_leaves_out_its_copies(tmp_path: Path) -> None:
    save(tmp_path, [washer(number) for number in range(4)])
    shutil.copy(tmp_path / "001.png", tmp_path / "copy.png")
    for name in ("001.png", "copy.png"):
        images = good_images(tmp_path, excluded=[name])
        assert [path.name for path in images.paths] == ["000.png", "002.png", "003.png"]  # type: ignore[attr-defined]
        assert {name.rpartition("/")[2] for name in images.left_out} == {"001.png", "copy.png"}


def test_damaged_files_of_the_same_bytes_are_no_copies(tmp_path: Path) -> None:
    save(tmp_path, [washer(0)])
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"damaged")
    images = good_images(tmp_path)
    assert [name for name, _ in images] == [str(tmp_path / "000.png")]
    assert len(images.skipped) == 2


def test_a_png_beside_a_jpeg_is_an_image_unless_it_is_a_mask(tmp_path: Path) -> None:
    save(tmp_path, [washer(number) for number in range(3)], ".jpg")
    save(tmp_path, [washer(10)])
    cv2.imwrite(str(tmp_path / "001.png"), (washer(11) > 128).astype(np.uint8) * 255)
    assert [path.name for path in good_images(tmp_path).paths] == [  # type: ignore[attr-defined]
        "000.jpg",
        "000.png",
        "001.jpg",
        "002.jpg",
    ]
    assert findings(tmp_path) == {"left out as masks: PNG files beside a photo of the same name": ["001.png"]}


def test_a_photo_is_never_the_mask_of_another(tmp_path: Path) -> None:
    for kind in ("good", "scratch"):
        save(tmp_path / kind, [washer(0)], ".jpg")
        save(tmp_path / kind, [washer(1)])
    assert [(image.path.name, image.mask) for image in labelled_images(tmp_path) if image.defective] == [
        ("000.jpg", None),
        ("000.png", None),
    ]


def test_sizes_orientation_depth_colour_pages_masks_and_other_files_are_named(tmp_path: Path) -> None:
    save(tmp_path, [washer(number) for number in range(8)])
    cv2.imwrite(str(tmp_path / "tall.png"), washer(8)[:, 8:-8])
    cv2.imwrite(str(tmp_path / "wide.png"), washer(9)[8:-8])
    cv2.imwrite(str(tmp_path / "deep.png"), washer(10).astype(np.uint16) * 16)
    cv2.imwrite(str(tmp_path / "grey.png"), washer(11)[..., 0])
    cv2.imwritemulti(str(tmp_path / "pages.tif"), [washer(12), washer(13)])
    cv2.imwrite(str(tmp_path / "area.png"), np.eye(SIDE, dtype=np.uint8) * 255)
    (tmp_path / "turned.jpg").write_bytes(with_orientation(cv2.imencode(".jpg", washer(14))[1].tobytes(), 3))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "photo.heic").touch()
    found = findings(tmp_path)
    assert [(what.partition(" (")[0].partition(":")[0], names) for what, names in found.items()] == [
        ("files of other kinds, not read", ["notes.txt", "photo.heic"]),
        ("images that look like masks, not like photos", ["area.png"]),
        ("images of another size than most", ["tall.png", "wide.png"]),
        ("images unlike most in that the file says how to turn them", ["turned.jpg"]),
        ("images of another depth than most", ["deep.png"]),
        ("images unlike most in colour", ["area.png", "grey.png"]),
        ("images of 16 bits that use only the lower 12", ["deep.png"]),
        ("files with several pages or frames, of which only the first is used", ["pages.tif"]),
    ]
    assert any(f"13 {SIDE}x{SIDE}, 1 48x{SIDE}, 1 {SIDE}x48" in what for what in found)
    assert any("16 grey levels are left" in what and "multiply their values by 16" in what for what in found)


def test_the_summary_begins_with_what_was_found_and_the_report_has_it(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = save(tmp_path / "good", [washer(number) for number in range(12)])
    shutil.copy(folder / "001.png", folder / "copy.png")
    outcome = command("fit", folder, "--size", SIDE, "--false-reject-rate", 0.1, "--out", tmp_path / "b")
    assert outcome.code == 0
    title = "1 identical copies of another image, counted once"
    assert outcome.out.index(title) < outcome.out.index("12 from")
    assert command("report", tmp_path / "b", "--out", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert title in page
    assert "copy.png is a copy of 001.png" in page


def test_the_python_api_logs_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path / "good", [washer(number) for number in range(12)])
    shutil.copy(folder / "001.png", folder / "copy.png")
    bundle = calibration.calibrate(folder, tmp_path / "b", size=(SIDE, SIDE), false_reject_rate=0.1)
    assert [finding.images for finding in bundle.manifest.images.findings] == [
        (f"{folder / 'copy.png'} is a copy of 001.png",)
    ]
    assert "1 identical copies of another image" in caplog.text


def test_workers_of_a_cluster_report_the_form_of_each_image(tmp_path: Path) -> None:
    settings = Settings(Preprocess(SIDE, SIDE))
    network = feature_network(filterbank_backbone(SIDE, SIDE), settings.detector, divide_brightness=False)
    extraction = Extraction(network.SerializeToString(), reduced_shape(network), settings.preprocess, 0)
    cv2.imwrite(str(tmp_path / "deep.png"), washer(0).astype(np.uint16) * 16)
    path = tmp_path / "deep.png"
    _, facts = dask_tasks.extract([dask_tasks.ImageSource("deep.png", path)], extraction)
    here = ImageFiles("", [path])
    assert len(list(here)) == 1
    assert list(facts.forms.values()) == list(here.forms.values())


def test_a_benchmark_learns_and_tests_each_image_once_and_reports_its_copies(tmp_path: Path) -> None:
    save(tmp_path / "good", [washer(number) for number in range(20)])
    save(tmp_path / "scratch", [washer(number, scratched=True) for number in range(4)])
    for number in range(20):
        shutil.copy(tmp_path / "good" / f"{number:03}.png", tmp_path / "good" / f"{number:03} (1).png")
    (data,) = labelled_sets(tmp_path)
    assert (len(data.good), len(data.copies)) == (20, 20)
    (split, *_) = splits(data, seeds=1, folds=2, images=None)
    assert sum(not image.defective for image in split.test) == 10
    settings = Settings(Preprocess(SIDE, SIDE), false_reject_rate=0.1, threads=1)
    (task,) = tasks([split], [Candidate(filterbank_backbone(SIDE, SIDE), "mean_shift", settings)])
    run = measured(task, tmp_path, lambda _: None)
    assert (run.learnt, run.good) == (10, 10)
    assert [found.partition(":")[0] for found in run.findings] == ["identical copies of another image, counted once"]
