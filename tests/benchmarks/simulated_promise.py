"""Is the promised false-reject rate kept on average, with scores of known distributions?

Each figure is the mean true rate of the thresholds from this number of scores, divided by the promised one.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from calibration.statistics.threshold import working_point

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Sampler = Callable[[np.random.Generator, int], NDArray[np.float64]]

COUNTS = (10, 20, 30, 50, 100, 300)
RATES = (0.01, 0.05)
SAMPLERS: dict[str, Sampler] = {
    "chi-square(3)": lambda random, count: random.chisquare(3, count),
    "chi-square(30)": lambda random, count: random.chisquare(30, count),
    "chi-square(200)": lambda random, count: random.chisquare(200, count),
    "log-normal(0.25)": lambda random, count: random.lognormal(0, 0.25, count),
    "log-normal(0.6)": lambda random, count: random.lognormal(0, 0.6, count),
    "Gumbel": lambda random, count: np.maximum(random.gumbel(10, 2, count), 1e-3),
    "log-logistic": lambda random, count: np.exp(random.logistic(0, 0.2, count)),
}
_MANY = 1_000_000


def main() -> None:
    """One line for each rate and distribution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="thresholds for each figure")
    draws = parser.parse_args().draws
    table = Table("promised", "scores", *map(str, COUNTS), box=box.MARKDOWN)
    for rate in RATES:
        for name, sample in SAMPLERS.items():
            known = np.sort(sample(np.random.default_rng(1), _MANY))
            table.add_row(f"{rate:.0%}", name, *(f"{_kept(sample, known, count, rate, draws):.2f}" for count in COUNTS))
    Console(width=150, highlight=False).print(table)


def _kept(sample: Sampler, known: NDArray[np.float64], count: int, rate: float, draws: int) -> float:
    random = np.random.default_rng(0)
    thresholds = [working_point(sample(random, count), rate).threshold for _ in range(draws)]
    return float(1 - np.searchsorted(known, thresholds).mean() / len(known)) / rate


if __name__ == "__main__":
    main()
