"""The Python API: five lines from a folder of images to verdicts and heat maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import calibration
from calibration.errors import BundleError, DatasetError, SettingError
from calibration.imaging.image_files import read_image
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle

FIVE_LINES = """
import calibration
bundle = calibration.calibrate("photos/good", "washers")
with calibration.inspector("washers") as inspect:
    result = inspect("photo.png")
print(result.score, result.is_defect, result.heatmap.shape)
"""


@pytest.mark.slow
def test_five_lines_calibrate_and_find_a_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("photos/good"), [washer(number) for number in range(24)])
    cv2.imwrite("photo.png", washer(99, scratched=True))
    exec(FIVE_LINES, {})  # noqa: S102 - our own text
    score, is_defect, *_ = capsys.readouterr().out.split()
    assert float(score) > 0
    assert is_defect == "True"


def test_a_frame_and_its_file_get_the_same_result(learnt: Bundle, tmp_path: Path) -> None:
    path = save(tmp_path, [washer(50)]) / "000.png"
    frame = washer(50)
    with calibration.inspector(learnt, backend="onnxruntime", threads=1) as inspect:
        from_file, from_frame = inspect(path), inspect(frame)
    assert from_file.score == from_frame.score
    assert from_frame.threshold == learnt.working_point.threshold
    assert not from_frame.is_defect
    assert from_frame.heatmap.shape == frame.shape
    np.testing.assert_array_equal(from_file.image, read_image(path))


def test_a_scratch_is_a_defect_and_the_heat_map_marks_it(learnt: Bundle) -> None:
    frame = washer(50, scratched=True)
    with calibration.inspector(learnt.path) as inspect:
        result = inspect(frame)
    assert result.is_defect
    assert result.score > result.threshold
    assert (result.region.width, result.region.height) == (64, 64)
    changed = (result.heatmap != frame).any(axis=2)
    assert changed[:32].sum() > 0
    assert result.score_map.max() > result.threshold


def test_the_api_scores_as_the_bundle_does(learnt: Bundle) -> None:
    golden = learnt.golden()
    with calibration.inspector(learnt) as inspect:
        scores = [inspect(frame).score for frame in golden.frames]
    np.testing.assert_allclose(scores, golden.scores, rtol=1e-3, atol=1e-3 * learnt.working_point.threshold)


def test_options_reach_the_bundle(tmp_path: Path) -> None:
    save(tmp_path / "good", [washer(number) for number in range(24)])
    steps: list[str] = []
    bundle = calibration.calibrate(
        tmp_path / "good",
        tmp_path / "bundle",
        size=(64, 80),
        region=(2, 4, 56, 52),
        detector="padim:dimensions=20",
        false_reject_rate=0.02,
        leave_out=["003.png"],
        threads=1,
        progress=lambda step, _done, _total: steps.append(step),
    )
    manifest = bundle.manifest
    assert (manifest.preprocess.height, manifest.preprocess.width) == (64, 80)
    assert (manifest.detector.name, manifest.detector.parameters["dimensions"]) == ("padim", 20)
    assert manifest.working_point.false_reject_rate == 0.02
    assert manifest.images.count == 23
    assert "learning" in steps


def test_what_is_wrong_is_said_with_a_remedy(learnt: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot read"):
        calibration.open_bundle(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="backend 'gpu' is not known"), calibration.inspector(learnt, backend="gpu"):
        pass
    with calibration.inspector(learnt) as inspect:
        with pytest.raises(DatasetError, match=r"cannot read .*photo\.png"):
            inspect(tmp_path / "photo.png")
        with pytest.raises(DatasetError, match="cannot use"):
            inspect(np.zeros((64, 64, 2), np.uint8))
    with pytest.raises(calibration.ShiftwatchError) as refused:
        calibration.calibrate(tmp_path / "nowhere", tmp_path / "bundle")
    assert refused.value.remedy


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys, calibration; print({'numpy', 'cv2', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert ended.stdout == "set()\n"


@pytest.mark.slow
def test_inspecting_imports_nothing_of_the_workstation() -> None:
    program = (
        "import sys, calibration; calibration.inspector;"
        "print([name for name in sys.modules if name.startswith(('calibration.workstation', 'torch'))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert ended.stdout == "[]\n"


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'inspect_everything'"):
        calibration.inspect_everything  # type: ignore[attr-defined]  # noqa: B018
