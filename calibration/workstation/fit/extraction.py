"""One pass over the images: what the detector learns from, and how good frames look."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from calibration.bundle.golden_frames import GoldenSample
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.detectors.feature_store import FeatureStore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.augmentation import augmented
from calibration.imaging.preprocess import prepare_image
from calibration.network.fusion import feature_network, reduced_shape
from calibration.workstation.fit.near_copies import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.feature_store import Features
    from calibration.imaging.preprocess import Image, PartLocation, Preprocess
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import Settings


@dataclass(frozen=True)
class TrainingData:
    """What one pass over the images leaves.

    Attributes:
        features: Of each usable image in its order, followed by those of its copies.
        names: Usable images.
        locations: Where the part was found in each.
        reference: How good frames look.
        golden: Sample of the frames.
        fingerprints: Of each image, to find near copies.
    """

    features: Features
    names: list[str] = field(default_factory=list)
    locations: list[PartLocation] = field(default_factory=list)
    reference: ReferenceStatistics = field(default_factory=ReferenceStatistics)
    golden: GoldenSample = field(default_factory=GoldenSample)
    fingerprints: list[NDArray[np.float32]] = field(default_factory=list)


class ImageFeatures(NamedTuple):
    """An image as network input, where the part was in it, and the features of it and of its copies."""

    frame: Image
    location: PartLocation
    reduced: list[NDArray[np.float32]]


@dataclass(frozen=True)
class Extraction:
    """How an image becomes features.

    Attributes:
        network: Made by ``feature_network``, as ONNX.
        shape: Shape of its output ``reduced``, (d, h, w).
        preprocess: Image to network input.
        copies: Varied copies of each image.
    """

    network: bytes
    shape: tuple[int, int, int]
    preprocess: Preprocess
    copies: int

    @classmethod
    def of(cls, backbone: Backbone, settings: Settings) -> Extraction:
        """What the detector of these settings learns from."""
        network = feature_network(backbone, settings.detector, divide_brightness=settings.divide_brightness)
        return cls(network.SerializeToString(), reduced_shape(network), settings.preprocess, settings.augment)

    def features_of(self, engine: OnnxRuntimeEngine, name: str, image: Image) -> ImageFeatures:
        """Features of an image. Its copies depend on nothing but the image, so that the order does not matter.

        Raises:
            DatasetError: The region of interest does not fit into it.
        """
        frame, location = prepare_image(self.preprocess, name, image)
        random = np.random.default_rng(zlib.crc32(frame.tobytes()))
        copies = (augmented(frame, random) for _ in range(self.copies))
        return ImageFeatures(frame, location, [engine.reduced(each) for each in (frame, *copies)])


class Extractor(Protocol):
    """Computes and keeps the features: on this machine, or on a cluster."""

    def __call__(
        self, images: Images, extraction: Extraction, folder: Path, threads: int, progress: Progress
    ) -> AbstractContextManager[TrainingData]:
        """Extract the features of all images; they can be used until the end of the context.

        Temporary files may lie in ``folder``; ``threads`` are those of the network on this machine.
        """


@contextmanager
def extract_here(
    images: Images, extraction: Extraction, folder: Path, threads: int, progress: Progress
) -> Iterator[TrainingData]:
    """Extract the features on this machine and keep them on its disk."""
    with FeatureStore(folder, extraction.shape) as store:
        data = TrainingData(store)
        with OnnxRuntimeEngine(extraction.network, threads) as engine:
            for name, image in images:
                frame, location, reduced = extraction.features_of(engine, name, image)
                for each in reduced:
                    store.append(each)
                data.names.append(name)
                data.locations.append(location)
                data.fingerprints.append(fingerprint(frame))
                data.reference.update(frame, extraction.preprocess.region_of_interest(image), image.shape[:2])
                data.golden.offer(frame, reduced[0])
                progress("learning", len(data.names), len(images))
            data.golden.add_damaged(engine.reduced)
        yield data
