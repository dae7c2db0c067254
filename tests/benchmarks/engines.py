"""Every engine that this machine has, side by side in one run: speed, scores, memory and start of each network."""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from detectors import backbone_of
from mtd import console, fit, settings_of, split
from rich import box
from rich.table import Table
from speed import by_turns, ratio

from calibration.bundle.bundle import golden_checks, open_bundle
from calibration.deployment.fastest import ENGINES, engines_here
from calibration.imaging.image_files import read_image
from calibration.workstation.cli.detector_options import parse_detector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image

NETWORKS = (
    "filterbank mean_shift",
    "filterbank mean_shift:location=shared",
    "lite0 mean_shift",
    "lite0 mean_shift:location=shared",
    "lite0 padim",
    "lite0 gaussian",
    "lite0 patchcore",
    "lite0+filterbank mean_shift",
    "mobilenet_v2 mean_shift",
)
REFERENCE = "ONNX Runtime"
THREADS = (1, 2)
_CALLS = 5


def network_rows(name: str, bundle: Bundle, frames: Sequence[Image], rounds: int) -> Iterator[list[str]]:
    """One row for each engine."""
    with ExitStack() as stack:
        engines = {
            threads: {name: stack.enter_context(create(bundle, threads)) for name, create in engines_here().items()}
            for threads in THREADS
        }
        ratios = {threads: _ratios(each, frames[:_CALLS], rounds) for threads, each in engines.items()}
        one = engines[THREADS[0]]
        scores = {engine: np.array([each(frame).score for frame in frames]) for engine, each in one.items()}
        for engine, each in one.items():
            golden = max(check.deviation for check in golden_checks(bundle.golden(), threshold(bundle), each))
            allowed = max(bundle.manifest.golden_tolerance, each.tolerance)
            off = np.abs(scores[engine] / scores[REFERENCE] - 1)
            verdicts = (scores[engine] > threshold(bundle)) != (scores[REFERENCE] > threshold(bundle))
            opened_s, memory_mib = in_fresh_process(partial(opening, bundle.path, engine))
            yield [
                name,
                engine,
                *(f"{ratios[threads][engine]:.2f}" for threads in THREADS),
                _share(golden),
                "yes" if golden <= allowed else "no",
                _share(float(np.median(off))),
                _share(float(off.max())),
                str(int(verdicts.sum())),
                f"{opened_s:.2f}",
                f"{memory_mib:.0f}",
            ]


def threshold(bundle: Bundle) -> float:
    """The threshold of the bundle's working point."""
    return bundle.manifest.working_point.threshold


def _ratios(engines: dict[str, Engine], frames: Sequence[Image], rounds: int) -> dict[str, float]:
    """Time of a frame by that of ONNX Runtime."""

    def run(engine: Engine) -> None:
        for frame in frames:
            engine(frame)

    turns = by_turns({name: partial(run, engine) for name, engine in engines.items()}, rounds, calls=2)
    return {name: ratio(turns, name, REFERENCE) for name in engines}


def _share(value: float) -> str:
    if value < 1e-4:  # rounding of float32
        return "0"
    return f"{value:.1%}" if value < 1 else f"{1 + value:.0f} times"


def in_fresh_process(task: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """What a task returns in a new interpreter."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(task).result()


def opening(path: Path, engine: str) -> tuple[float, float]:
    """Seconds until an engine has scored its first frame on one thread, with all imports, and the memory it takes."""
    bundle, before_mib = open_bundle(path), _resident_mib()
    frame = bundle.golden().frames[0]
    start_s = perf_counter()
    with ENGINES[engine](bundle, 1) as opened:
        opened(frame)
        return perf_counter() - start_s, _resident_mib() - before_mib


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Print the table of README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument(
        "--images", type=int, default=None, help="number of good tiles to calibrate with; default: four fifths of them"
    )
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    table = Table("network", "engine", box=box.MARKDOWN)
    for threads in THREADS:
        table.add_column(f"{threads} thread{'s' * (threads > 1)}", justify="right")
    for title in ("golden frames", "may be used", "tiles, median", "worst", "other verdicts", "start s", "MiB"):
        table.add_column(title, justify="right")
    tiles = split(images=arguments.images)
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(arguments.networks):
            backbone, detector = name.split()
            settings = settings_of(parse_detector(detector))
            bundle = fit(backbone_of(backbone), tiles.learnt, settings, Path(folder) / str(number))
            frames = [bundle.preprocess(read_image(image.path)) for image in tiles.test]
            for row in network_rows(name, bundle, frames, arguments.rounds):
                table.add_row(*row)
                console.print(*row, sep=" | ")
    console.print(table)


if __name__ == "__main__":
    main()
