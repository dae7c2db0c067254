"""Training of Patch SVDD's encoders: it learns, goes on where it was interrupted, and ends in a graph of its own."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calibration.bundle.bundle import open_bundle
from calibration.detectors.patch_svdd import PatchSvdd, split_levels
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, DegenerateFeaturesError, SettingError, StorageError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.terminal import EXIT_INTERRUPTED
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.outcome import assert_refused
from tests.support.washers import SIDE, Drawn, washer

torch = pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")

from calibration.workstation.torch_models.patch_svdd import training  # noqa: E402 - it imports torch, which may be absent
from calibration.workstation.torch_models.patch_svdd.checkpoint import Checkpoint  # noqa: E402 - as above
from calibration.workstation.torch_models.patch_svdd.encoders import Encoders, over_frames  # noqa: E402 - as above
from calibration.workstation.torch_models.patch_svdd.patch_pairs import Frames  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.patch_svdd import EncoderKind
    from calibration.imaging.preprocess import Image
    from tests.support.outcome import Outcome

    Command = Callable[..., Outcome]

LITTLE = ("--size", "64", "--threads", "1", "--detector", "patch_svdd:steps=6")
OTHER = (*LITTLE[:-1], "patch_svdd:steps=6,svdd_weight=0.5")


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_KEPT_EVERY", 2)


def settings_of(detector: PatchSvdd | None = None, side: int = SIDE, **options: Any) -> Settings:  # noqa: ANN401 - of any kind
    return Settings(Preprocess(side, side), detector or PatchSvdd(steps=4), threads=1, **options)


def silent(_step: str, _done: int, _total: int) -> None:
    """Nobody looks."""


def trained(
    pictures: list[Image], settings: Settings, checkpoint: Path, progress: Callable[[str, int, int], None] = silent
) -> Backbone:
    assert isinstance(settings.detector, PatchSvdd)
    return training.trained_encoders(Drawn(pictures), settings, settings.detector, checkpoint, progress)


def good(count: int = 12) -> list[Image]:
    return [washer(number) for number in range(count)]


def map_of_places(height: int, width: int) -> Frames:
    """One image whose red is the row, and whose green is the column."""
    rows, columns = np.indices((height, width))
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return Frames([picture], [1.0], np.zeros(3, np.float32), spread=1.0)


def corners(patches: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(row, column) of patches of the map, from which the noise is rounded away."""
    return np.asarray(np.rint(patches.mean(axis=(2, 3))[:, :2] - (patches.shape[2] - 1) / 2), np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64])
def test_neighbours_lie_in_the_direction_given_and_as_far_as_in_the_paper(side: int) -> None:
    first, second, directions = map_of_places(250, 240).neighbours(500, side, np.random.default_rng(0))
    assert first.shape == second.shape == (500, 3, side, side)
    shifts = corners(second) - corners(first)
    inside = (corners(second) > 0) & (corners(second) < np.array([250, 240]) - side)
    ways = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])[directions]
    assert set(directions.tolist()) == set(range(8))
    for axis in (0, 1):
        whole = inside[:, axis]
        assert whole.sum() > 100
        np.testing.assert_array_equal(np.sign(shifts[whole, axis]), ways[whole, axis])
        moved = np.abs(shifts[whole, axis][ways[whole, axis] != 0])
        assert (moved.min(), moved.max()) == (3 * side // 4, side - 1)


def test_neighbours_have_noise_in_each_colour_and_in_each_pixel() -> None:
    grey = Frames([np.full((64, 64, 3), 100, np.uint8)], [1 / 255], np.zeros(3, np.float32), spread=0.5)
    first, second, _ = grey.neighbours(300, 32, np.random.default_rng(0))
    for patches in (first, second):
        colours = patches.mean(axis=(2, 3))
        assert colours.std() == pytest.approx(0.02 / 0.5, rel=0.1)
        assert (patches - colours[..., None, None]).std() == pytest.approx(0.02 / 0.5, rel=0.1)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("side", "reach"), [(32, 1), (64, 2)])
def test_jittered_patches_are_right_beside_each_other(side: int, reach: int) -> None:
    first, second = map_of_places(250, 240).jittered(500, side, np.random.default_rng(0))
    shifts = corners(second) - corners(first)
    assert (shifts.min(), shifts.max()) == (-reach, reach)
    inside = ((corners(second) > 0) & (corners(second) < np.array([250, 240]) - side)).all(axis=1)
    assert shifts[inside].any(axis=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("frame", [(64, 64), (96, 128)])
def test_the_graph_gives_each_patch_the_features_that_it_has_alone(frame: tuple[int, int]) -> None:
    import onnxruntime as ort  # noqa: PLC0415 - after torch may have been found absent

    torch.manual_seed(1)
    encoders = Encoders()
    image = torch.randn(1, 3, *frame)
    session = ort.InferenceSession(over_frames(encoders, *frame).SerializeToString())
    levels = session.run(None, {"image": image.numpy()})
    for level, encode, side, stride in zip(levels, (encoders.small, encoders.large), (32, 64), (4, 16), strict=True):
        assert level.shape[2:] == tuple((each - side) // stride + 1 for each in frame)
        for row, column in np.ndindex(*level.shape[2:]):
            patch = image[..., row * stride : row * stride + side, column * stride : column * stride + side]
            with torch.no_grad():
                np.testing.assert_allclose(level[0, :, row, column], encode(patch)[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("encoders_kind", ["he", "paper"])
def test_the_network_shows_the_encoders_what_they_were_trained_on(
    tmp_path: Path, encoders_kind: EncoderKind, *, divide: bool
) -> None:
    """The same image by both ways: cut into patches, and through brightness, colour order and normalisation."""
    detector = PatchSvdd(steps=2, encoders=encoders_kind)
    settings = settings_of(detector, divide_brightness=divide)
    pictures = [washer(number, scratched=True) for number in range(12)]
    frames, _ = training.training_frames(Drawn(pictures), settings, silent, mean_image=encoders_kind == "paper")
    backbone = trained(pictures, settings, tmp_path / "c.pt")
    encoders = training.train(frames, detector, Checkpoint(tmp_path / "other.pt", {}), silent)
    network = feature_network(backbone, PatchSvdd(), divide_brightness=divide)
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        fine, coarse = split_levels(engine.reduced(pictures[5]))
    for level, encode, side in ((fine, encoders.small, 32), (coarse, encoders.large, 64)):
        patch = frames.cut(np.array([5]), np.array([[0, 0]]), side)
        with torch.no_grad():
            np.testing.assert_allclose(level[:, 0, 0], encode(torch.from_numpy(patch))[0], atol=1e-4)


def test_what_was_trained_is_standardised() -> None:
    frames, _ = training.training_frames(Drawn(good()), settings_of(), silent)
    everything = np.concatenate([frames.cut(np.array([number]), np.array([[0, 0]]), SIDE) for number in range(12)])
    np.testing.assert_allclose(everything.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    assert everything.std() == pytest.approx(1, rel=1e-4)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As calibration in these tests, since another number of threads sums in another order; and for small networks."""
    with training._threads(1):
        yield


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Of each step, in order: position and SVDD' of small patches, then of large ones."""
    whole, noted = training._losses, list[list[float]]()

    def noting(*arguments: Any) -> Any:  # noqa: ANN401 - passed on as they are
        noted.append([])
        for loss in whole(*arguments):
            noted[-1].append(float(loss.detach()))
            yield loss

    monkeypatch.setattr(training, "_losses", noting)
    return noted


def ramp() -> Frames:
    """One image that is brighter toward the bottom and greener toward the right."""
    rows, columns = np.indices((128, 128))
    picture = np.stack([2 * rows, 2 * columns, 255 - 2 * rows], axis=2).astype(np.uint8)
    return Frames([picture], [1 / 255], np.full(3, 0.5, np.float32), spread=0.1)


@pytest.mark.slow
def test_training_learns_where_patches_lie(
    losses: list[list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blind guess among eight directions has a loss of log 8."""
    monkeypatch.setattr(training, "_LEARNING_RATE", 1e-3)
    training.train(ramp(), PatchSvdd(steps=25, batch=8), Checkpoint(tmp_path / "c.pt", {}), silent)
    assert np.mean([step[2] for step in losses[-10:]]) < np.log(8) - 0.05


@pytest.mark.slow
def test_training_draws_patches_beside_each_other_together(losses: list[list[float]], tmp_path: Path) -> None:
    """Where their loss has all the weight."""
    training.train(ramp(), PatchSvdd(steps=10, svdd_weight=100), Checkpoint(tmp_path / "c.pt", {}), silent)
    (_, small, _, large), (_, small_then, _, large_then) = losses[0], losses[-1]
    assert small_then < 0.8 * small
    assert large_then < 0.8 * large


class StoppedError(Exception):
    """Somebody pulled the plug."""


def interrupting(at: int) -> Callable[[str, int, int], None]:
    def move(step: str, done: int, _total: int) -> None:
        if (step, done) == ("training", at):
            raise StoppedError

    return move


@pytest.mark.slow
def test_training_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings, checkpoint = settings_of(PatchSvdd(steps=5)), tmp_path / "c.pt"
    whole = trained(good(), settings, tmp_path / "whole.pt")
    for at in (1, 3, 5):  # the third is kept already, since it is the last step
        with pytest.raises(StoppedError):
            trained(good(), settings, checkpoint, interrupting(at))
    seen: list[int] = []
    resumed = trained(good(), settings, checkpoint, lambda _step, done, _total: seen.append(done))
    assert seen[-1] == 5
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.graphs[0].model == whole.graphs[0].model
    assert resumed == whole


@pytest.mark.slow
def test_an_interrupted_training_can_be_made_longer_and_not_shorter(tmp_path: Path) -> None:
    settings, checkpoint = settings_of(PatchSvdd(steps=4)), tmp_path / "c.pt"
    whole = trained(good(), settings_of(PatchSvdd(steps=6)), tmp_path / "whole.pt")
    seen: list[int] = []
    trained(good(), settings, checkpoint)
    longer = trained(
        good(),
        settings_of(PatchSvdd(steps=6)),
        checkpoint,
        lambda step, done, _total: seen.append(done) if step == "training" else None,
    )
    assert seen == [4, 5, 6]
    assert longer == whole
    with pytest.raises(SettingError, match=r"(?s)c\.pt holds 6 steps of a training, more than 4\n.*steps=6 or more"):
        trained(good(), settings, checkpoint)


@pytest.mark.slow
def test_training_changes_the_encoders_and_depends_on_its_settings(tmp_path: Path) -> None:
    settings = PatchSvdd(steps=2), PatchSvdd(steps=3), PatchSvdd(steps=2, batch=5), PatchSvdd(steps=0)
    digests = {trained(good(), settings_of(each), tmp_path / f"{each}.pt").weights_sha256 for each in settings}
    assert len(digests) == len(settings)


def test_without_steps_the_encoders_are_random(tmp_path: Path) -> None:
    backbone = trained(good(), settings_of(PatchSvdd(steps=0)), tmp_path / "c.pt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training._SEED)
        assert backbone.weights_sha256 == (training._digest(Encoders()),)
    assert list(tmp_path.iterdir()) == []


def test_encoders_of_the_paper_begin_as_torch_begins_and_see_each_pixel_less_its_mean(tmp_path: Path) -> None:
    """The authors' code: images / 255 less the mean image, layers as torch makes them, a last one that stays."""
    detector = PatchSvdd(steps=1, encoders="paper")
    frames, _ = training.training_frames(Drawn(good()), settings_of(detector), silent, mean_image=True)
    images = np.stack(good())[..., ::-1].astype(np.float64) / 255
    patches = frames.cut(np.array([3]), np.array([[7, 5]]), 32)
    np.testing.assert_allclose(patches[0].transpose(1, 2, 0), (images[3] - images.mean(axis=0))[7:39, 5:37], atol=1e-6)
    kept: dict[str, Any] = {}

    class Kept(Checkpoint):
        def keep(self, steps: int, *parts: Any) -> None:  # noqa: ANN401 - torch's modules share no type
            assert steps == 1
            kept.update(parts[0].state_dict())

    training.train(frames, detector, Kept(tmp_path / "c.pt", {}), silent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training._SEED)
        layer = torch.nn.Conv2d(3, 32, 3, 2)
    name = "0.fine.0.weight"
    assert float((kept[name] - layer.weight.detach()).abs().max()) == pytest.approx(training._LEARNING_RATE, rel=0.01)
    for number in (0, 1):
        np.testing.assert_allclose(kept[f"1.{number}.4.weight"].norm(dim=0), 1, rtol=1e-5)


@pytest.mark.slow
def test_training_leaves_the_randomness_and_the_threads_of_torch_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    trained(good(), settings_of(), tmp_path / "c.pt")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


OTHERS: dict[str, tuple[list[Image], Settings]] = {
    "images, region or size": ([*good()[:11], washer(99)], settings_of()),
    "brightness": (good(), settings_of(divide_brightness=True)),
    "batch": (good(), settings_of(PatchSvdd(steps=4, batch=5))),
    "svdd_weight": (good(), settings_of(PatchSvdd(steps=4, svdd_weight=0.5))),
    "encoders": (good(), settings_of(PatchSvdd(steps=4, encoders="paper"))),
}


@pytest.mark.slow
@pytest.mark.parametrize("difference", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, difference: str) -> None:
    checkpoint = tmp_path / "c.pt"
    trained(good(), settings_of(), checkpoint)
    before = checkpoint.read_bytes()
    pictures, settings = OTHERS[difference]
    with pytest.raises(SettingError, match=rf"(?s)c\.pt holds a training with other {difference}\n.*or remove .*c\.pt"):
        trained(pictures, settings, checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.slow
def test_a_checkpoint_of_other_software_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(good(), settings_of(), tmp_path / "c.pt")
    monkeypatch.setattr(training, "version", lambda _name: "0.0.1")
    with pytest.raises(SettingError, match="holds a training with other software"):
        trained(good(), settings_of(), tmp_path / "c.pt")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut", "text", "list"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    checkpoint = tmp_path / "c.pt"
    trained(good(), settings_of(), checkpoint)
    content = checkpoint.read_bytes()
    if damage == "list":
        torch.save([1, 2], checkpoint)
    else:
        checkpoint.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"steps"}[damage])
    with pytest.raises(SettingError, match=r"(?s)c\.pt is not a checkpoint of a training.*remove"):
        trained(good(), settings_of(), checkpoint)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", {})
    module = torch.nn.Linear(2, 2)
    checkpoint.keep(1, module)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"(?s)cannot keep the training in .*c\.pt: No space left.*same command"):
        checkpoint.keep(2, module)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]
    assert checkpoint.restore(1, module) == 1


@pytest.mark.parametrize(
    ("pictures", "error", "what"),
    [
        (good(9), DatasetError, "only 9 usable images"),
        ([washer(0)] * 12, DegenerateFeaturesError, "all images are the same"),
    ],
)
def test_images_that_teach_nothing_are_refused_before_training(
    tmp_path: Path, pictures: list[Image], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        trained(pictures, settings_of(), tmp_path / "c.pt", interrupting(1))


def test_more_frames_than_fit_into_memory_are_a_random_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_FRAMES_BYTES", 5 * 3 * SIDE * SIDE)
    pictures = good(40)
    frames, digest = training.training_frames(Drawn(pictures), settings_of(), silent)
    indices = [
        next(i for i, each in enumerate(pictures) if np.array_equal(kept[..., ::-1], each)) for kept in frames.frames
    ]
    assert len(set(indices)) == 5
    assert max(indices) > 5
    _, other = training.training_frames(Drawn([*pictures[:39], washer(99)]), settings_of(), silent)
    assert digest != other


@pytest.mark.slow
def test_fit_trains_writes_a_bundle_and_leaves_no_checkpoint(
    command: Command, good_folder: Path, tmp_path: Path
) -> None:
    outcome = command("fit", good_folder, "--out", tmp_path / "out", *OTHER)
    assert outcome.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    manifest = open_bundle(tmp_path / "out").manifest
    count = manifest.images.count
    patches = {"candidates": 81 * count, "patches": 81 * count, "bank_32": min(2000, 81 * count), "bank_64": count}
    assert manifest.detector.name == "patch_svdd"
    assert manifest.detector.parameters == {**asdict(PatchSvdd(steps=6, svdd_weight=0.5)), **patches}
    assert (manifest.backbone.name, manifest.backbone.channels, manifest.backbone.grid) == ("patch_svdd", 128, (9, 9))
    assert len(manifest.backbone.weights_sha256) == 1
    assert command("verify", tmp_path / "out").code == 0


@pytest.mark.slow
def test_fit_goes_on_where_it_was_interrupted(
    command: Command, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("fit", good_folder, "--out", tmp_path / "whole", *LITTLE).code == 0
    keep = Checkpoint.keep

    def interrupted(self: Checkpoint, steps: int, *parts: Any) -> None:  # noqa: ANN401 - passed on as they are
        keep(self, steps, *parts)
        if steps == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "keep", interrupted)
    assert command("fit", good_folder, "--out", tmp_path / "out", *LITTLE).code == EXIT_INTERRUPTED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.training.pt", "whole"]
    other = command("fit", good_folder, "--out", tmp_path / "out", *OTHER)
    assert_refused(other, r"out\.training\.pt holds a training with other svdd_weight", "or remove .*training")
    assert command("fit", good_folder, "--out", tmp_path / "out", *LITTLE).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    resumed, whole = (open_bundle(tmp_path / name).manifest for name in ("out", "whole"))
    assert resumed.files == whole.files


BAD = {
    "--size 72": ("patch_svdd cannot take a network input of 72x72", "at least 64 that are multiples of 16"),
    "--size 48": ("patch_svdd cannot take a network input of 48x48", "at least 64"),
    "--backbone filterbank": ("encoders of its own, to which --backbone does not apply", "leave out"),
    "--auto": ("encoders of its own, to which --auto does not apply", "leave out"),
    "--stages blocks.3 --weights w.pth": ("to which --stages, --weights does not apply", "leave out"),
    "--detector patch_svdd:steps=-1": ("steps = -1 is negative", "0 or more"),
    "--detector patch_svdd:svdd_weight=-1": (r"svdd_weight = -1\.0", "0 or more"),
    "--false-reject-rate 2": ("makes no sense", r"0\.01"),
    "--memory-limit-mib 1": (r"10x9 locations of 64 channels need \d+ MiB .* limit is 1 MiB", "fewer --frames"),
    "--frames 0:9": ("only 9 usable images", "at least 10"),
    "--alpha 0.1": ("--alpha belongs to --detector mean_shift, not to patch_svdd", "leave it out"),
}


@pytest.mark.parametrize("options", BAD)
def test_fit_refuses_them_with_the_remedy(command: Command, good_folder: Path, tmp_path: Path, options: str) -> None:
    begin = ["fit", good_folder, "--out", tmp_path / "out", "--size", "64", "--detector", "patch_svdd"]
    assert_refused(command(*begin, *options.split()), *BAD[options])
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_remedy_is_shown(
    command: Command, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "calibration.workstation.torch_models.patch_svdd.training")
    monkeypatch.delattr("calibration.workstation.torch_models.patch_svdd.training")
    monkeypatch.setitem(sys.modules, "torch", None)
    outcome = command("fit", good_folder, "--out", tmp_path / "out", *LITTLE)
    assert_refused(outcome, "training the encoders of patch_svdd needs torch", r"pip install .*'\.\[fit\]'")


@pytest.mark.slow
def test_a_trained_detector_sees_the_scratch(tmp_path: Path) -> None:
    settings = settings_of(side=128)
    pictures = [washer(number, side=128) for number in range(24)]
    backbone = trained(pictures, settings, tmp_path / "c.pt")
    bundle = calibrate(Drawn(pictures), backbone, settings, tmp_path / "bundle", silent)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        usual = [engine(washer(number, side=128)).score for number in range(300, 306)]
        seen = [engine(washer(number, side=128, scratched=True)) for number in range(400, 406)]
    assert np.mean([each.score > score for each in seen for score in usual]) > 0.9
    for each in seen:
        assert each.map.shape == (32, 32)
        row, column = np.unravel_index(int(each.map.argmax()), each.map.shape)
        assert row < 16  # the scratch lies between 25 and 43 pixels from the top
        assert column < 24
