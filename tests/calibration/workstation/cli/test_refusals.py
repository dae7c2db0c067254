"""What ``shiftwatch-calibrate`` refuses: exit code 2, what is wrong and how to fix it, and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calibration.bundle.bundle import MANIFEST, REFERENCE, SEAL, npz_bytes, seal
from calibration.terminal import EXIT_ERROR, EXIT_INTERRUPTED
from tests.support.outcome import assert_refused
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calibration.bundle.bundle import Bundle
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

SCRIPT = Path(sys.executable).parent / "shiftwatch-calibrate"
# The largest file that the process may write: past it, writing fails as it does on a full disk.
WITH_LITTLE_ROOM = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from calibration.workstation.cli.main import main
main()
"""


def test_verify_refuses_a_changed_file(command: Command, bundle: Bundle) -> None:
    content = bytearray(bundle.network.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.network.write_bytes(content)
    assert_refused(command("verify", bundle.path), r"network\.onnx is not what calibration wrote", "copy the bundle")


def test_verify_refuses_scores_that_are_not_the_calibrated_ones(command: Command, bundle: Bundle) -> None:
    arrays = bundle.reference()
    arrays["golden_scores"][1] *= 1.01
    content = npz_bytes(arrays)
    (bundle.path / REFERENCE).write_bytes(content)
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    manifest["files"][REFERENCE] = hashlib.sha256(content).hexdigest()
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))
    (bundle.path / SEAL).write_bytes(seal((bundle.path / MANIFEST).read_bytes()))
    assert_refused(command("verify", bundle.path), "scores golden frame 1 .* tolerance of 0.001", "do not inspect")


BAD_OPTIONS = {
    "--settled --passing": ("both --settled and --passing are given", "give one of them"),
    "--size 60": ("input of 60x60", "multiples of 16"),
    "--size 64x": ("--size '64x'|--size", "HEIGHTxWIDTH"),
    "--size 0x64": ("--size 0x64 is not a size", "HEIGHTxWIDTH"),
    "--size 1e3x?": ("--size", "HEIGHTxWIDTH"),
    "--size nan": ("--size", "HEIGHTxWIDTH"),
    "--size 64.5": ("--size 64.5 is not a size", "HEIGHTxWIDTH"),
    "--size 64x64x3": ("--size 64x64x3 is not a size", "HEIGHTxWIDTH"),
    "--size large": ("--size 'large' is not understood|--size", "HEIGHTxWIDTH"),
    "--roi 1,2,3": ("--roi 1,2,3 is not a region", "X,Y,WIDTH,HEIGHT"),
    "--roi a,b,c,d": ("--roi 'a,b,c,d' is not understood", "X,Y,WIDTH,HEIGHT"),
    "--roi 0,0,65,64": (r"000\.png: region of interest 0,0,65,64 .* 64x64 pixels", "inside the frame"),
    "--roi 0,0,0,0": (r"000\.png: region of interest 0,0,0,0", "inside the frame"),
    "--roi -1,0,20,20": (r"000\.png: region of interest -1,0,20,20", "inside the frame"),
    "--alpha 0": (r"alpha = 0\.0 is outside \(0, 1\]", "such as 0.1"),
    "--alpha 1.5": (r"alpha = 1\.5 is outside", "such as 0.1"),
    "--alpha nan": ("--alpha nan is not finite", "a number"),
    "--alpha 0,5": ("--alpha 0,5 is 2 numbers", "decimal point"),
    "--alpha some": ("--alpha 'some' is not understood", "a number"),
    "--detector hotelling:patch_px=40,region_px=40": ("patch_px = 40 is not possible", "give 16, 32, 48, 64"),
    "--detector hotelling": ("region_px = 80 is larger than the 4x4 cells", "64 or less, or a larger --size"),
    "--averaging 0": ("averaging = 0 cells is too small", "1 or more"),
    "--averaging 5": ("5 cells is larger than the 4x4 grid", "--averaging 4 or less"),
    "--frames 5": ("--frames '5' is not a range", "START:STOP:STEP"),
    "--frames 0:9:0": ("--frames '0:9:0' is not a range", "START:STOP:STEP"),
    "--frames 90:99": ("no images chosen from the 24", "--frames START:STOP"),
    "--frames 0:9": ("only 9 usable images", "at least 10"),
    "--frames 0:1": ("only 1 usable images", "at least 10"),
    "--false-reject-rate 0": (r"false-reject rate of 0\.0 makes no sense", r"0\.01"),
    "--false-reject-rate 2": (r"false-reject rate of 2\.0 makes no sense", r"0\.01"),
    "--memory-limit-mib 1": ("need 5 MiB .* limit is 1 MiB", "--location shared"),
    "--weights w.pth": ("--weights and --stages belong to a timm model, not to filterbank", "--backbone NAME"),
    "--stages a": ("--weights and --stages belong to a timm model, not to filterbank", "--backbone NAME"),
    "--backbone nowhere.onnx": (r"cannot read the backbone nowhere\.onnx", "check the path"),
    "--backbone x.onnx --std 1,0,1": ("--std has a zero", "no division"),
    "--backbone x.onnx --std 1,1": ("--std 1,1 has 2 numbers", "R,G,B"),
    "--backbone x.onnx --mean nan,0,0": ("--mean nan,0,0 is not finite", "R,G,B"),
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_fit_refuses_bad_options_and_says_how_to_fix_them(
    command: Command, good_folder: Path, tmp_path: Path, options: str
) -> None:
    size = [] if "--size" in options else ["--size", "64"]
    outcome = command("fit", good_folder, "--out", tmp_path / "out", *size, *options.split())
    assert_refused(outcome, *BAD_OPTIONS[options])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", ["--threads -1", "--location elsewhere", "--detector oracle", "--threads few"])
def test_fit_refuses_values_that_are_not_on_the_list(
    command: Command, good_folder: Path, tmp_path: Path, options: str
) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "out", *options.split())
    assert outcome.code == EXIT_ERROR
    assert options.split(maxsplit=1)[0] in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def empty(folder: Path) -> Path:
    return folder


def one_image(folder: Path) -> Path:
    return save(folder, [washer(0)])


def all_identical(folder: Path) -> Path:
    return save(folder, [washer(0)] * 12)


def single_picture(folder: Path) -> Path:
    return save(folder, [washer(0)]) / "000.png"


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("washers")
    return folder / "notes.txt"


def all_damaged(folder: Path) -> Path:
    for number in range(12):
        (folder / f"{number:03}.jpg").write_bytes(b"damaged")
    return folder


def device(_folder: Path) -> Path:
    return Path("/dev/null")


@pytest.mark.parametrize(
    ("make", "what", "remedy"),
    [
        (empty, "no images in", "folder that holds the images"),
        (one_image, "only 1 usable images", "at least 10"),
        (all_identical, "features of all images are the same", "different good parts"),
        (single_picture, r"000\.png is a single image", "folder"),
        (missing, "nowhere does not exist", "a folder of images or a video"),
        (text_file, r"notes\.txt is neither a folder nor a video", "mp4"),
        (all_damaged, r"only 0 usable images .*12 were not readable: .*000\.jpg", "at least 10"),
        (device, "/dev/null is neither a folder nor a video", "mp4"),
    ],
)
def test_fit_refuses_a_source_it_cannot_learn_from(
    command: Command, tmp_path: Path, make: Callable[[Path], Path], what: str, remedy: str
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    outcome = command("fit", make(folder), "--out", tmp_path / "out", "--size", "64")
    assert_refused(outcome, what, remedy)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_fit_refuses_to_write_where_something_is(command: Command, good_folder: Path, learnt: Bundle) -> None:
    outcome = command("fit", good_folder, "--out", learnt.path, "--size", "64")
    assert_refused(outcome, "already exists, and a bundle is never changed", "another name")


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        ("tf_efficientnet_lite0 --stages blocks.9", r"no stage 'blocks\.9'", r"blocks\.4 \(112 channels, 4x4\)"),
        ("tf_efficientnet_lite0", "no --stages given", r"blocks\.3 \(80 channels, 4x4\)"),
        ("efficientnet_b0 --stages blocks.3", r"lite0\.safetensors does not fit efficientnet_b0", "this model"),
        ("efficientnett_b4 --stages blocks.3", "no model 'efficientnett_b4'", "efficientnet_b4"),
    ],
)
def test_fit_refuses_a_timm_model_that_does_not_fit(  # noqa: PLR0913 - three columns and three fixtures
    command: Command, good_folder: Path, weights: Path, tmp_path: Path, *, options: str, what: str, remedy: str
) -> None:
    pytest.importorskip("timm", reason="timm is an extra: pip install --editable '.[fit]'")
    file = weights / "tf_efficientnet_lite0.safetensors"
    backbone = ["--backbone", *options.split(), "--weights", file]
    outcome = command("fit", good_folder, "--out", tmp_path / "out", "--size", "64", *backbone)
    assert_refused(outcome, what, remedy)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["verify", "evaluate"])
def test_what_is_no_bundle_is_refused(command: Command, labelled_folder: Path, tmp_path: Path, verb: str) -> None:
    arguments = [labelled_folder] if verb == "evaluate" else []
    outcome = command(verb, tmp_path, *arguments)
    assert_refused(outcome, r"cannot read .*manifest\.json", "folder that `shiftwatch-calibrate fit` wrote")


def test_evaluate_refuses_images_of_one_kind(command: Command, learnt: Bundle, tmp_path: Path) -> None:
    save(tmp_path / "good", [washer(0)])
    assert_refused(command("evaluate", learnt.path, tmp_path), "has images of good;", "test/good, test/<kind>")


def test_evaluate_refuses_a_file_that_it_cannot_write(
    command: Command, learnt: Bundle, labelled_folder: Path, tmp_path: Path
) -> None:
    outcome = command("evaluate", learnt.path, labelled_folder, "--scores", tmp_path / "no" / "scores.csv")
    assert_refused(outcome, r"cannot write .*scores\.csv", "--scores FILE")


def test_evaluate_names_the_image_that_the_region_does_not_fit(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert command("fit", good_folder, "-o", out, "--size", "64", "--roi", "0,0,60,64").code == 0
    save(tmp_path / "set/good", [washer(0)])
    save(tmp_path / "set/scratch", [washer(0)[:, :50]])
    outcome = command("evaluate", out, tmp_path / "set", "--scores", tmp_path / "scores.csv")
    assert_refused(outcome, r"set/scratch/000\.png: region of interest", "inside the frame")


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "what"), [(20_000, "cannot keep features"), (150_000, "cannot write the bundle")])
def test_a_full_disk_is_an_error_that_leaves_nothing(good_folder: Path, tmp_path: Path, limit: int, what: str) -> None:
    """Twice: while features are kept, and while the bundle is written."""
    arguments = ["fit", str(good_folder), "--out", str(tmp_path / "out"), "--size", "64"]
    ended = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", WITH_LITTLE_ROOM, str(limit), *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == EXIT_ERROR
    assert what in ended.stderr
    assert "room on that disk" in ended.stderr or "free disk space" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_130_and_leaves_nothing(
    command: Command, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted() -> Iterator[Callable[[str, int, int], None]]:
        def move(_step: str, done: int, _total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

        yield move

    monkeypatch.setattr("calibration.workstation.cli.fit.progress_bar", interrupted)
    outcome = command("fit", good_folder, "--out", tmp_path / "out", "--size", "64")
    assert outcome.code == EXIT_INTERRUPTED
    assert "interrupted" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_console_script_gives_exit_code_2_without_a_traceback(tmp_path: Path) -> None:
    arguments = ["fit", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert ended.returncode == EXIT_ERROR
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: no images in {tmp_path}")
    assert "Traceback" not in ended.stderr
