"""Maps of Patch SVDD: written from the paper's equations, without reading the code under test.

Yi and Yoon 2020, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV, equations 8 to 10. The
authors' code is github.com/nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch; read for facts, not copied. Training is
outside of this file: an encoder is any function from a patch to a vector.

What the equations leave open, and what is taken here:

- Patches lie at all multiples of the stride at which they fit into the image: 13 x 13 of K = 64 at stride 16, and
  57 x 57 of K = 32 at stride 4, for images of 256 x 256.
- Nearest normal patch: Euclidean, among all patches of all good images of the same size K, at any position. (The code
  searches K = 32 approximately, by NGT.)
- A pixel takes the mean over all patches that contain it. Pixels that no patch contains (where image size minus K is
  no multiple of the stride) have 0, as in the code.
- The two maps are multiplied pixel by pixel; the image's score is the maximum of the product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def embed(
    images: NDArray[np.float64],
    encode: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    side: int,
    stride: int,
) -> NDArray[np.float64]:
    """Vectors (n, rows, columns, d) of all patches (c, K, K) of images (n, c, H, W)."""
    rows = (images.shape[2] - side) // stride + 1
    columns = (images.shape[3] - side) // stride + 1
    vectors = [
        encode(image[:, row * stride : row * stride + side, column * stride : column * stride + side])
        for image in images
        for row in range(rows)
        for column in range(columns)
    ]
    return np.stack(vectors).reshape(len(images), rows, columns, -1)


def patch_scores(vectors: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n, rows, columns) of each vector from the nearest normal one, both (n, rows, columns, d) (8)."""
    bank = normal.reshape(-1, normal.shape[-1])
    scores = np.zeros(vectors.shape[:3])
    for index in np.ndindex(scores.shape):
        scores[index] = np.linalg.norm(bank - vectors[index], axis=1).min()
    return scores


def pixel_map(scores: NDArray[np.float64], size: tuple[int, int], side: int, stride: int) -> NDArray[np.float64]:
    """Mean score (H, W) of the patches that contain each pixel, from the scores (rows, columns) of one image."""
    total = np.zeros(size)
    count = np.zeros(size)
    for row, column in np.ndindex(scores.shape):
        place = np.s_[row * stride : row * stride + side, column * stride : column * stride + side]
        total[place] += scores[row, column]
        count[place] += 1
    return total / np.maximum(count, 1)


def anomaly_map(maps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Product (H, W) of the pixel maps of all patch sizes (9)."""
    product = np.ones_like(maps[0])
    for each in maps:
        product = product * each
    return product


def image_score(product: NDArray[np.float64]) -> float:
    """Maximum of the product (10)."""
    return float(product.max())
