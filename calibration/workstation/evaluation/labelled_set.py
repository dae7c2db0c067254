"""A labelled data set: what to learn from, and what to test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.workstation.labelled_images import Labelled


@dataclass(frozen=True)
class LabelledSet:
    """One data set.

    Attributes:
        name: Name of its folder, or of its category.
        good: Good images to learn from, sorted.
        test: Labelled images; of a set that is not divided, these include all of ``good``.
        divided: The set itself says what to learn from and what to test, as MVTec does.
        copies: Files with the bytes of one of ``good``, each with that one; they are not learned from.
        part_folders: Each folder of images shows one part, which is either learned from or tested.
    """

    name: str
    source: Path
    good: tuple[Path, ...]
    test: tuple[Labelled, ...]
    divided: bool
    copies: tuple[tuple[Path, Path], ...] = ()
    part_folders: bool = False

    @property
    def content_sha256(self) -> str:
        """Digest of the names and sizes of all files: it differs where the set does."""
        masks = (image.mask for image in self.test if image.mask)
        files = sorted({*self.good, *(image.path for image in self.test), *masks})
        lines = (f"{file.relative_to(self.source)} {file.stat().st_size}\n" for file in files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
