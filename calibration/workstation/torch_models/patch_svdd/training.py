"""Good images in, trained encoders out: the self-supervised training of Patch SVDD (Yi and Yoon 2020)."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from calibration.backbones.backbone import Backbone
from calibration.detectors.patch_svdd import COARSE, FINE
from calibration.engine.cpu_cores import usable_cores
from calibration.errors import DegenerateFeaturesError, SettingError
from calibration.imaging.preprocess import prepare_image
from calibration.network.fusion import STANDARD_BRIGHTNESS
from calibration.onnx_graph import FeatureGraph
from calibration.workstation.settings import refuse_too_few, refuse_too_large
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
    from pathlib import Path

    from calibration.detectors.patch_svdd import PatchSvdd
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import Settings

_SEED = 0
_STEPS = 32  # of an epoch, whatever the number of images, so that training takes the same time for all
_PAIRS = 32
_LEARNING_RATE = 1e-4
_FRAMES_BYTES = 2**29


def trained_encoders(
    images: Images, settings: Settings, detector: PatchSvdd, checkpoint: Path, progress: Progress
) -> Backbone:
    """Train the encoders on good images, or continue a training that was interrupted.

    The same images and settings on the same machine give the same encoders, interrupted or not. Memory for the images
    is bounded: of more than 512 MiB, a random choice is trained on.

    Returns:
        The encoders as a backbone of two levels. The checkpoint can be removed once a bundle holds them.

    Raises:
        SettingError: The size or the checkpoint does not fit.
        DatasetError: Too few readable images.
        DegenerateFeaturesError: All images are alike.
        ModelTooLargeError: The memory banks would not fit.
        StorageError: No room for the checkpoint.
    """
    frames, digest = _frames(images, settings, progress)
    made_from = {
        "images, region or size": digest,
        "brightness": str(settings.divide_brightness),
        "epochs": str(detector.epochs),
        "svdd-weight": str(detector.svdd_weight),
        "software": f"shiftwatch {version('shiftwatch')}, torch {torch.__version__}",
    }
    with _threads(settings.threads):
        encoders = train(frames, detector, Checkpoint(checkpoint, made_from), progress)
    red, green, blue = map(float, frames.mean)
    network = over_frames(encoders, settings.preprocess.height, settings.preprocess.width)
    graph = FeatureGraph(network, (red, green, blue), (frames.spread,) * 3)
    return Backbone((graph,), detector.name, (), (_digest(encoders),))


def _frames(images: Images, settings: Settings, progress: Progress) -> tuple[Frames, str]:
    """Frames to train on, a random choice where memory is short, and a digest of all images.

    Refuses what calibration would refuse after the training.
    """
    height, width = settings.preprocess.height, settings.preprocess.width
    if height % COARSE.stride or width % COARSE.stride or min(height, width) < COARSE.side:
        raise SettingError(
            what=f"patch_svdd cannot take a network input of {height}x{width}",
            remedy=f"give sides of at least {COARSE.side} that are multiples of {COARSE.stride}, e.g. 224x224",
        )
    (rows, columns), (coarse_rows, _) = (field.grid(height, width) for field in (FINE, COARSE))
    refuse_too_large((CHANNELS, rows + coarse_rows, columns), len(images), settings)
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
    return _standardised(frames, units), digest.hexdigest()


def _standardised(frames: list[Image], units: list[float]) -> Frames:
    weighted = list(zip(frames, units, strict=True))
    mean = np.mean([frame.mean(axis=(0, 1)) * unit for frame, unit in weighted], axis=0)
    square = np.mean([np.square(frame * np.float32(unit) - mean).mean() for frame, unit in weighted])
    return Frames(frames, units, mean.astype(np.float32), max(float(np.sqrt(square)), 1 / 255))


def train(frames: Frames, detector: PatchSvdd, checkpoint: Checkpoint, progress: Progress) -> Encoders:
    """Minimise the loss of eq. 5: position prediction, and SVDD' times lambda, of patches of both sizes.

    Each epoch draws its patches from a generator of its own, so that a resumed training draws the same.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        encoders, classifiers = Encoders(), nn.ModuleList(position_classifier() for _ in range(2))
    networks = nn.ModuleList([encoders, classifiers]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(networks.parameters(), _LEARNING_RATE)
    done = checkpoint.restore(networks, optimizer)
    progress("epochs", done, detector.epochs)
    for epoch in range(done, detector.epochs):
        random = np.random.default_rng((_SEED, epoch))
        for step in range(_STEPS):
            optimizer.zero_grad()
            for loss in _losses(frames, encoders, classifiers, detector.svdd_weight, random):
                torch.autograd.backward(loss)  # each at once: their sum would keep all of their patches in memory
            optimizer.step()
            progress("training", epoch * _STEPS + step + 1, detector.epochs * _STEPS)
        checkpoint.keep(epoch + 1, networks, optimizer)
        progress("epochs", epoch + 1, detector.epochs)
    return encoders


def _losses(
    frames: Frames, encoders: Encoders, classifiers: nn.ModuleList, svdd_weight: float, random: np.random.Generator
) -> Iterator[torch.Tensor]:
    """The terms of the loss, each on patches of its own."""
    encode: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = encoders.small, encoders.large
    for field, features_of, classifier in zip((FINE, COARSE), encode, classifiers, strict=True):
        first, second, directions = frames.neighbours(_PAIRS, field.side, random)
        one, other = features_of(torch.from_numpy(np.concatenate([first, second]))).chunk(2)
        yield nn.functional.cross_entropy(classifier(one - other), torch.from_numpy(directions))
        if svdd_weight:
            one, other = features_of(
                torch.from_numpy(np.concatenate(frames.jittered(_PAIRS, field.side, random)))
            ).chunk(2)
            yield svdd_weight * (one - other).norm(dim=1).mean()


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
