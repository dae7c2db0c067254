"""Good images in, trained encoders out: the self-supervised training of Patch SVDD (Yi and Yoon 2020)."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from calibration.backbones.backbone import Backbone
from calibration.detectors.patch_svdd import COARSE, FINE, refuse_unfit_size
from calibration.engine.cpu_cores import usable_cores
from calibration.errors import DegenerateFeaturesError
from calibration.imaging.preprocess import prepare_image
from calibration.network.fusion import STANDARD_BRIGHTNESS
from calibration.onnx_graph import FeatureGraph
from calibration.workstation.settings import refuse_too_few, refuse_too_large, within_memory
from calibration.workstation.torch_models.patch_svdd.checkpoint import Checkpoint
from calibration.workstation.torch_models.patch_svdd.encoders import (
    CHANNELS,
    Encoders,
    over_frames,
    position_classifier,
)
from calibration.workstation.torch_models.patch_svdd.patch_pairs import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from calibration.detectors.patch_svdd import PatchSvdd
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import Settings

    Float32 = NDArray[np.float32]

_SEED = 0
_KEPT_EVERY = 100  # steps
_LEARNING_RATE = 1e-4
_FRAMES_BYTES = 2**29


def trained_encoders(
    images: Images, settings: Settings, detector: PatchSvdd, checkpoint: Path, progress: Progress
) -> Backbone:
    """Train the encoders on good images, or continue a training that was interrupted.

    The same images and settings on the same machine give the same encoders, interrupted or not; an interrupted
    training can be made longer. Memory for the images is bounded: of more than 512 MiB, a random choice is trained on.

    Returns:
        The encoders as a backbone of two levels. The checkpoint can be removed once a bundle holds them.

    Raises:
        SettingError: The size or the checkpoint does not fit.
        DatasetError: Too few readable images.
        DegenerateFeaturesError: All images are alike.
        ModelTooLargeError: The memory banks would not fit.
        StorageError: No room for the checkpoint.
    """
    frames, digest = training_frames(images, settings, progress, mean_image=detector.encoders == "paper")
    made_from = {
        "images, region or size": digest,
        "brightness": str(settings.divide_brightness),
        "batch": str(detector.batch),
        "svdd_weight": str(detector.svdd_weight),
        "encoders": detector.encoders,
        "software": f"shiftwatch {version('shiftwatch')}, torch {torch.__version__}",
    }
    with _threads(settings.threads):
        encoders = train(frames, detector, Checkpoint(checkpoint, made_from), progress)
    return encoder_backbone(encoders, frames, detector)


def encoder_backbone(encoders: Encoders, frames: Frames, detector: PatchSvdd) -> Backbone:
    """The encoders on whole frames, which they see as they saw those that they were trained on."""
    height, width = frames.frames[0].shape[:2]
    if detector.encoders == "paper":
        graph = FeatureGraph(over_frames(encoders, height, width, frames.mean))
    else:
        red, green, blue = map(float, frames.mean)
        graph = FeatureGraph(over_frames(encoders, height, width), (red, green, blue), (frames.spread,) * 3)
    return Backbone((graph,), detector.name, (), (_digest(encoders),))


def training_frames(
    images: Images, settings: Settings, progress: Progress, *, mean_image: bool = False
) -> tuple[Frames, str]:
    """Frames to train on, a random choice where memory is short, and a digest of all images.

    Refuses what calibration would refuse after the training.
    """
    height, width = settings.preprocess.height, settings.preprocess.width
    refuse_unfit_size(height, width)
    (rows, columns), (coarse_rows, _) = (field.grid(height, width) for field in (FINE, COARSE))
    shape = CHANNELS, rows + coarse_rows, columns
    refuse_too_large(shape, len(images), within_memory(settings, shape, len(images)))
    random = np.random.default_rng(_SEED)
    limit = max(1, _FRAMES_BYTES // (3 * height * width))
    frames: list[Image] = []
    count, digest, different = 0, hashlib.sha256(), set[bytes]()
    for name, image in images:
        frame = np.ascontiguousarray(prepare_image(settings.preprocess, name, image)[0][..., ::-1])
        own = hashlib.sha256(frame.data).digest()
        digest.update(own)
        different.add(own)
        count += 1
        if len(frames) < limit:
            frames.append(frame)
        elif (index := int(random.integers(count))) < limit:
            frames[index] = frame
        progress("reading", count, len(images))
    refuse_too_few(count, images)
    if len(different) == 1:
        raise DegenerateFeaturesError(
            what="all images are the same: nothing can be learned about how good parts vary",
            remedy="give images of different good parts, not copies of one",
        )
    # As the network scales its input.
    units = [
        STANDARD_BRIGHTNESS / max(float(frame.mean()), 1.0) if settings.divide_brightness else 1 / 255
        for frame in frames
    ]
    return (_centred if mean_image else _standardised)(frames, units), digest.hexdigest()


def _standardised(frames: list[Image], units: list[float]) -> Frames:
    weighted = list(zip(frames, units, strict=True))
    mean = np.mean([frame.mean(axis=(0, 1)) * unit for frame, unit in weighted], axis=0)
    square = np.mean([np.square(frame * np.float32(unit) - mean).mean() for frame, unit in weighted])
    return Frames(frames, units, mean.astype(np.float32), max(float(np.sqrt(square)), 1 / 255))


def _centred(frames: list[Image], units: list[float]) -> Frames:
    total = np.zeros(frames[0].shape)
    for frame, unit in zip(frames, units, strict=True):
        total += frame * np.float32(unit)
    return Frames(frames, units, (total / len(frames)).astype(np.float32), 1.0)


def train(frames: Frames, detector: PatchSvdd, checkpoint: Checkpoint, progress: Progress) -> Encoders:
    """Minimise the loss of eq. 5: position prediction, and SVDD' times lambda, of patches of both sizes.

    Each step draws its patches from a generator of its own, so that a resumed training draws the same.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        paper = detector.encoders == "paper"
        encoders = Encoders(he=not paper)
        classifiers = nn.ModuleList(position_classifier(scaled=paper) for _ in range(2))
    networks = nn.ModuleList([encoders, classifiers]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(networks.parameters(), _LEARNING_RATE)
    done = checkpoint.restore(detector.steps, networks, optimizer)
    progress("training", done, detector.steps)
    for step in range(done, detector.steps):
        random = np.random.default_rng((_SEED, step))
        optimizer.zero_grad()
        for loss in _losses(frames, encoders, classifiers, detector, random):
            torch.autograd.backward(loss)  # each at once: their sum would keep all of their patches in memory
        optimizer.step()
        if (step + 1) % _KEPT_EVERY == 0 or step + 1 == detector.steps:
            checkpoint.keep(step + 1, networks, optimizer)
        progress("training", step + 1, detector.steps)
    return encoders


def _losses(
    frames: Frames, encoders: Encoders, classifiers: nn.ModuleList, detector: PatchSvdd, random: np.random.Generator
) -> Iterator[torch.Tensor]:
    """The terms of the loss, each on patches of its own."""
    encode: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = encoders.small, encoders.large
    for field, features_of, classifier in zip((FINE, COARSE), encode, classifiers, strict=True):
        first, second, directions = frames.neighbours(detector.batch, field.side, random)
        one, other = _pair_of_features(features_of, first, second)
        yield nn.functional.cross_entropy(classifier(one - other), torch.from_numpy(directions))
        if detector.svdd_weight:
            one, other = _pair_of_features(features_of, *frames.jittered(detector.batch, field.side, random))
            yield detector.svdd_weight * (one - other).norm(dim=1).mean()


def _pair_of_features(
    features_of: Callable[[torch.Tensor], torch.Tensor], first: Float32, second: Float32
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=_computes_in_bfloat16()):
        one, other = features_of(torch.from_numpy(np.concatenate([first, second]))).chunk(2)
    return one, other


@cache
def _computes_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers, at nearly twice the speed; others only imitate it."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Threads of torch; 0 leaves the choice to torch, which does not know the quota of a container."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or min(before, usable_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _digest(encoders: Encoders) -> str:
    digest = hashlib.sha256()
    for tensor in encoders.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
