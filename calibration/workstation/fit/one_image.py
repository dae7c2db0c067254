"""A single image to learn from: copies of it that vary as parts under a fixed camera do take the place of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.imaging.augmentation import augmented

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from calibration.workstation.dataset import Images, NamedImage

_COPIES = 4


class VariedCopies:
    """One image, followed by varied copies of it, as ``Images``."""

    sequential = False

    def __init__(self, images: Images) -> None:
        self.source, self.left_out, self.skipped = images.source, images.left_out, images.skipped
        self._images = images

    def __len__(self) -> int:
        """The image and its copies."""
        return 1 + _COPIES

    def __iter__(self) -> Iterator[NamedImage]:
        """See ``Images``; the copies are the same each time."""
        for name, image in self._images:
            yield name, image
            random = np.random.default_rng(0)
            for number in range(1, _COPIES + 1):
                yield f"{name}, varied {number}", augmented(image, random)

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        """See ``Images``."""
        return ((name, image) for name, image in self if name in names)
