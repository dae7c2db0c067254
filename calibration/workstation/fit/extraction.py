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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features
    from calibration.imaging.preprocess import Image, PartLocation, Preprocess
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images


@dataclass(frozen=True)
class Gathered:
    """What one pass over the images leaves.

    Attributes:
        features: Of each usable image in its order, before those of its copies.
        names: Of the usable images.
        places: Where the region of interest was in each.
        reference: How they look.
        golden: Some of them.
    """

    features: Features
    names: list[str] = field(default_factory=list)
    places: list[PartLocation] = field(default_factory=list)
    reference: ReferenceStatistics = field(default_factory=ReferenceStatistics)
    golden: GoldenSample = field(default_factory=GoldenSample)


class Extracted(NamedTuple):
    """An image as network input, where in it that was taken, and the features of it and of its copies."""

    frame: Image
    place: PartLocation
    reduced: list[NDArray[np.float32]]


@dataclass(frozen=True)
class Extraction:
    """How an image becomes features.

    Attributes:
        network: Made by ``network.feature_network``, as ONNX.
        shape: Of its output ``reduced``, (d, h, w).
        preprocess: Image to network input.
        copies: Varied copies of each image.
    """

    network: bytes
    shape: tuple[int, int, int]
    preprocess: Preprocess
    copies: int

    def of(self, engine: OnnxRuntimeEngine, name: str, image: Image) -> Extracted:
        """Features of an image; copies vary in a way that follows from the image, so that no order matters.

        Raises:
            DatasetError: The region of interest does not fit into it.
        """
        frame, place = prepare_image(self.preprocess, name, image)
        random = np.random.default_rng(zlib.crc32(frame.tobytes()))
        copies = (augmented(frame, random) for _ in range(self.copies))
        return Extracted(frame, place, [engine.reduced(each) for each in (frame, *copies)])


class Gather(Protocol):
    """Somewhere to gather: on this machine, or on a cluster."""

    def __call__(
        self,
        images: Images,
        extraction: Extraction,
        folder: Path,
        threads: int,
        progress: Progress,
    ) -> AbstractContextManager[Gathered]:
        """Look at all images; the features can be used until the end of the context.

        Args:
            images: Of good parts.
            extraction: What becomes of each.
            folder: Room for files without a name.
            threads: Of the network, on this machine.
            progress: Told about images.
        """


@contextmanager
def gathered_here(
    images: Images, extraction: Extraction, folder: Path, threads: int, progress: Progress
) -> Iterator[Gathered]:
    """Look at all images on this machine; features lie on its disk."""
    with FeatureStore(folder, extraction.shape) as store:
        gathered = Gathered(store)
        with OnnxRuntimeEngine(extraction.network, threads) as engine:
            for name, image in images:
                frame, place, reduced = extraction.of(engine, name, image)
                for each in reduced:
                    store.append(each)
                gathered.names.append(name)
                gathered.places.append(place)
                gathered.reference.update(frame, extraction.preprocess.region_of_interest(image), image.shape[:2])
                gathered.golden.offer(frame, reduced[0])
                progress("learning", len(gathered.names), len(images))
            gathered.golden.add_damaged(engine.reduced)
        yield gathered
