"""Ledoit-Wolf covariance: written from the paper's formulas, without reading the code under test.

Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate Anal.
88, section 3.2. The papers on anomaly detection use it by name: Hermann et al. 2022 (7), Rippel et al. 2021 (4).

Left open by both: whether the sample covariance S has the divisor n or n - 1. Ledoit and Wolf divide by n, and so does
``sklearn.covariance.ledoit_wolf``, which both groups of authors call. Here: n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ledoit_wolf(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Shrunk covariance (p, p) of samples (n, p), and the share a of (1 - a) S + a (tr S / p) I."""
    count, dimensions = samples.shape
    centred = samples - samples.mean(axis=0)
    empirical = centred.T @ centred / count
    target = np.trace(empirical) / dimensions * np.eye(dimensions)
    spread = np.sum((empirical - target) ** 2)
    error = sum(np.sum((np.outer(sample, sample) - empirical) ** 2) for sample in centred) / count**2
    share = 0.0 if spread == 0 else float(min(error, spread) / spread)
    return (1 - share) * empirical + share * target, share
