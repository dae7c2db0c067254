"""CIFAR-10, one class against all others (Krizhevsky 2009), from the binary files of its author."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.errors import DatasetError, StorageError
from calibration.workstation.dataset import GOOD, distinct
from calibration.workstation.evaluation.labelled_set import LabelledSet
from calibration.workstation.labelled_images import Labelled

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_SIDE = 32
_RECORD = 1 + 3 * _SIDE**2  # the class, and a plane of red, of green and of blue


def cifar10_sets(source: Path, unpacked: Path) -> list[LabelledSet]:
    """A set for each class: learned from its images in the training files, tested on all images of the test file.

    An image becomes a PNG, which changes no pixel.

    Args:
        source: The folder with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.
        unpacked: A folder for the images; those of several calls must differ.

    Returns:
        Ten sets, or none if there is no such file.

    Raises:
        DatasetError: A file is missing or damaged, or they are those of the Python version: pickles, which may run
            any code when they are read.
        StorageError: No room.
    """
    if not any((source / f"data_batch_1{suffix}").is_file() for suffix in ("", ".bin")):
        return []
    if not (source / "data_batch_1.bin").is_file():
        raise DatasetError(
            what=f"{source.absolute()} is the Python version of CIFAR-10, whose files may run code when they are read",
            remedy="give the folder cifar-10-batches-bin of the binary version",
        )
    folders = {part: unpacked / part for part in BATCHES}
    for part, batches in BATCHES.items():
        for batch in batches:
            _unpack(source / f"{batch}.bin", folders[part])
    images = {name: sorted((folders["test"] / name).glob("*.png")) for name in CLASSES}
    return [_one_class(name, unpacked, sorted((folders["train"] / name).glob("*.png")), images) for name in CLASSES]


def _one_class(own: str, unpacked: Path, learnt: list[Path], images: dict[str, list[Path]]) -> LabelledSet:
    good, copies = distinct(learnt)
    test = (Labelled(path, GOOD if name == own else name) for name, paths in images.items() for path in paths)
    return LabelledSet(own, unpacked, tuple(good), tuple(test), divided=True, copies=tuple(copies))


def _unpack(file: Path, folder: Path) -> None:
    """Write the images of a file to a folder for each class."""
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DatasetError(what=f"cannot read {file}: {error.strerror}", remedy="unpack the whole archive") from error
    records = content[: len(content) // _RECORD * _RECORD].reshape(-1, _RECORD)
    if not len(records) or len(content) % _RECORD or records[:, 0].max() >= len(CLASSES):
        raise DatasetError(
            what=f"{file} is not a file of CIFAR-10: it has {len(content):,} bytes, and each image takes {_RECORD:,}",
            remedy="copy it from the archive again; CIFAR-100 is not read",
        )
    pixels = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)[:, ::-1].transpose(0, 2, 3, 1)
    try:
        for name in CLASSES:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for number, (label, image) in enumerate(zip(records[:, 0], pixels, strict=True)):
            encoded = cv2.imencode(".png", np.ascontiguousarray(image))[1]
            (folder / CLASSES[label] / f"{file.stem}_{number:05}.png").write_bytes(encoded.tobytes())
    except OSError as error:
        raise StorageError(
            what=f"cannot unpack {file} to {folder}: {error.strerror}",
            remedy="make room there, or choose another disk with the variable TMPDIR",
        ) from error
