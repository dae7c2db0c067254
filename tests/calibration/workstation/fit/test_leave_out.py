"""Images that the user leaves out, and those that deserve a review."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.bundle.bundle import open_bundle
from calibration.errors import DatasetError, SettingError, StorageError
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess, Region
from calibration.statistics.outliers import HIGHEST, HighestScores, outlier_indices
from calibration.statistics.scores import Scores, generalised_mean
from calibration.workstation.cli.image_names import names_in, write_names
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, Drawn, save, washer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.workstation.dataset import NamedImage
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

SETTINGS = Settings(Preprocess(SIDE, SIDE), threads=1)


def test_images_left_out_are_not_learned_from_and_stand_in_the_manifest(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text(f"# doubtful ones\n003.png  # a dent?\n\n{good_folder}/017.png\n")
    outcome = command("fit", good_folder, "-o", tmp_path / "b", "--size", "64", "--leave-out", names)
    assert outcome.code == 0
    assert "good images 22" in outcome.words
    assert "left out 2" in outcome.words
    images = open_bundle(tmp_path / "b").manifest.images
    assert images.count == 22
    assert images.left_out == (f"{good_folder}/003.png", f"{good_folder}/017.png")
    assert images.skipped == ()


def test_leaving_out_is_as_if_the_files_were_not_there(
    good_folder: Path, small_filterbank: Backbone, tmp_path: Path
) -> None:
    fewer = save(tmp_path / "fewer", [washer(number) for number in range(2, 24)])
    bundles = [
        calibrate(images, small_filterbank, SETTINGS, tmp_path / str(number), lambda *_: None)
        for number, images in enumerate([good_images(good_folder, excluded={"000.png", "001.png"}), good_images(fewer)])
    ]
    network, moments = ({each.manifest.files[name] for each in bundles} for name in ("network.onnx", "moments.npz"))
    assert (len(network), len(moments)) == (1, 1)


def test_names_that_are_not_there_are_refused_and_listed(command: Command, good_folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("003.png\n99.png\nelsewhere/004.png\n")
    outcome = command("fit", good_folder, "-o", tmp_path / "b", "--size", "64", "--leave-out", names)
    assert_refused(outcome, r"not among the 24 images: 99\.png, elsewhere/004\.png$", "one a line")
    assert not (tmp_path / "b").exists()


def test_a_file_of_names_that_cannot_be_read_is_refused(command: Command, good_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00")
    for file, reason in ((tmp_path / "nowhere", "No such file"), (tmp_path / "names.txt", "not text in UTF-8")):
        outcome = command("fit", good_folder, "-o", tmp_path / "b", "--leave-out", file)
        assert_refused(outcome, reason, "one image name a line")


def test_frames_of_a_video_are_left_out_by_name(data: Path) -> None:
    video = data / "conveyor/bolt-multi-size-detection.gif"
    images = good_images(video, slice(0, 6), {f"{video.name}#1", f"{video}#5"})
    assert len(images) == 4
    assert [name.rpartition("#")[2] for name, _ in images] == ["0", "2", "3", "4"]
    assert images.left_out == (f"{video}#1", f"{video}#5")
    with pytest.raises(SettingError, match="#6"):
        good_images(video, slice(0, 6), {f"{video.name}#6"})


def test_a_number_sign_inside_a_name_is_no_comment(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("line3.mp4#12 # blurred\n#line3.mp4#13\n  a b.png  \n\t# nothing\n")
    assert names_in(file) == {"line3.mp4#12", "a b.png"}


@pytest.mark.parametrize("kind", ["files", "video"])
def test_images_can_be_read_again_by_name(kind: str, data: Path, good_folder: Path) -> None:
    source = good_folder if kind == "files" else data / "conveyor/bolt-multi-size-detection.gif"
    images = good_images(source, slice(0, 8))
    first = dict(images)
    images.skipped.append("something")
    wanted = [list(first)[index] for index in (5, 2)]
    again = dict(images.again(wanted))
    assert list(again) == sorted(wanted)
    assert all(np.array_equal(again[name], first[name]) for name in wanted)
    assert images.skipped == ["something"]
    assert dict(images.again([])) == {}


def test_the_bundle_holds_the_good_images_with_the_highest_scores(learnt: Bundle) -> None:
    reference = learnt.reference()
    scores = reference["good_scores"]
    order = np.argsort(-scores)[:HIGHEST]
    assert reference["highest_names"].tolist() == [f"washer {number}" for number in order]
    np.testing.assert_array_equal(reference["highest_scores"], scores[order])
    np.testing.assert_array_equal(reference["highest_frames"], [washer(int(number)) for number in order])
    maps = reference["highest_maps"].reshape(HIGHEST, -1)
    np.testing.assert_allclose(generalised_mean(maps, 8.0), scores[order], rtol=1e-6)


def test_the_frames_held_are_as_the_network_saw_them(small_filterbank: Backbone, tmp_path: Path) -> None:
    preprocess = Preprocess(SIDE, SIDE, Region(4, 6, 50, 48))
    images = Drawn([washer(number) for number in range(12)])
    bundle = calibrate(images, small_filterbank, Settings(preprocess, threads=1), tmp_path / "b", lambda *_: None)
    reference = bundle.reference()
    first = int(str(reference["highest_names"][0]).split()[1])
    np.testing.assert_array_equal(reference["highest_frames"][0], preprocess(washer(first)))


def test_a_defective_part_among_the_good_ones_is_pointed_out(command: Command, tmp_path: Path) -> None:
    pictures = [washer(number) for number in range(40)]
    pictures[13] = washer(13, scratched=True)
    folder = save(tmp_path / "pictures", pictures)
    outcome = command("fit", folder, "-o", tmp_path / "b", "--size", "64")
    assert "1 suspicious" in outcome.out
    assert f"{folder}/013.png" in outcome.out
    assert "--leave-out" in outcome.out
    reference = open_bundle(tmp_path / "b").reference()
    assert reference["suspicious_names"].tolist() == [f"{folder}/013.png"]
    assert reference["suspicious_scores"].tolist() == [reference["good_scores"].max()]
    np.testing.assert_array_equal(reference["highest_frames"][0], read_image(folder / "013.png"))


class Vanishing(Drawn):
    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        yield from list(super().again(names))[1:]


def test_images_that_vanish_during_calibration_are_refused(small_filterbank: Backbone, tmp_path: Path) -> None:
    images = Vanishing([washer(number) for number in range(12)])
    with pytest.raises(DatasetError, match=r"(?s)drawn has changed: washer \d+ cannot be read again.*calibrate again"):
        calibrate(images, small_filterbank, SETTINGS, tmp_path / "b", lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.floats(0.0, 1e6, width=32), min_size=1, max_size=40), st.integers(1, 7))
def test_the_highest_of_many_batches_are_the_highest_of_all(values: list[float], batch: int) -> None:
    scores = np.array(values, np.float32)
    highest = HighestScores()
    for start in range(0, len(scores), batch):
        part = scores[start : start + batch]
        highest.offer(range(start, start + len(part)), Scores(part, np.tile(part[:, None, None], (1, 2, 3))))
    expected = np.argsort(-scores, kind="stable")[:HIGHEST]
    assert highest.indices == expected.tolist()
    np.testing.assert_array_equal(highest.maps[:, 0, 0], scores[expected])


def test_only_scores_far_above_the_rest_are_suspicious() -> None:
    scores = np.exp(np.random.default_rng(0).normal(5.0, 0.2, 200))
    assert len(outlier_indices(scores)) <= 1
    scores[[3, 50]] = [900.0, 1200.0]
    assert outlier_indices(scores)[:2] == [50, 3]
    scores[7] = 1e-3  # far below is no suspect
    assert 7 not in outlier_indices(scores)


def test_among_scores_that_are_all_alike_only_a_true_outlier_is_suspicious() -> None:
    assert outlier_indices(np.array([5.0] * 20 + [5.01])) == []
    assert outlier_indices(np.array([5.0] * 20 + [6.0])) == [20]
    assert outlier_indices(np.zeros(20)) == []


def test_where_defective_images_are_expected_twice_as_many_are_named() -> None:
    scores = np.random.default_rng(0).gamma(50.0, 1.0, 200)
    scores[:5] = 500.0 + np.arange(5)
    assert outlier_indices(scores, 0.1) == np.argsort(-scores, kind="stable")[:40].tolist()
    assert outlier_indices(scores, 0.001) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("share", [-0.1, 0.51])
def test_a_contamination_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(SettingError, match=r"outside 0 to 0\.5"):
        Settings(Preprocess(64, 64), contamination=share)


@pytest.mark.slow
def test_suspicious_names_are_written_to_a_file_that_leave_out_takes(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    names = tmp_path / "suspicious.txt"
    outcome = command(
        "fit", good_folder, "-o", tmp_path / "b", "--size", "64", "--contamination", "0.1", "--suspicious", names
    )
    assert outcome.code == 0
    listed = names.read_text().splitlines()
    assert listed == open_bundle(tmp_path / "b").reference()["suspicious_names"].tolist()
    assert len(listed) == 5  # twice a tenth of 24, rounded up
    assert command("fit", good_folder, "-o", tmp_path / "c", "--size", "64", "--leave-out", names).code == 0
    assert open_bundle(tmp_path / "c").manifest.images.left_out == tuple(sorted(listed))


def test_names_that_cannot_be_written_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"(?s)cannot write .*--suspicious FILE"):
        write_names(tmp_path / "nowhere" / "names.txt", ["a"])
