"""Does the agent warn of drift in time, and not without a cause? Drawn numbers, real tiles, real clips."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import cv2
import mtd
import numpy as np
from rich import box
from rich.table import Table

from agent.drift.drift_watch import BLOCK_PARTS, BLOCK_S, FALSE_ALARM_DAYS, DriftWatch, appearance, good_statistics
from agent.drift.reference_ranks import SIDES, HighScores, ReferenceRanks
from agent.drift.sequential_test import SequentialTest
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image

BLOCKS_A_DAY = int(86_400 / BLOCK_S)
EVERY_BLOCKS = SIDES * FALSE_ALARM_DAYS * BLOCKS_A_DAY
LEVELS = 16
PARTS_AN_HOUR = 120
CLIPS = ("bolt-multi-size-detection.gif", "fruit-and-vegetable-detection.gif", "bottle-detection.mp4")
FAULTS: dict[str, Callable[[Image, float], Image]] = {
    "lamp ages, to half its light": lambda image, level: faded(image, 1 - 0.5 * level, 0),
    "gain rises, to twice": lambda image, level: faded(image, 1 + level, 0),
    "lens fogs, to half the contrast": lambda image, level: faded(image, 1 - 0.5 * level, 64 * level),
    "focus is lost, to sigma 3 pixels": lambda image, level: blurred(image, 3 * level + 1e-3),
}


def faded(image: Image, gain: float, veil: float) -> Image:
    """Light times a gain, under a grey veil."""
    return np.asarray(np.clip(image * gain + veil, 0, 255), np.uint8)


def blurred(image: Image, sigma_px: float) -> Image:
    """Out of focus."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


# Drawn numbers


def coins(every_blocks: float, runs: int, random: np.random.Generator) -> float:
    """Mean number of blocks before the first warning where all sides toss fair coins."""
    lengths = []
    for _ in range(runs):
        sides = [SequentialTest(SIDES * every_blocks) for _ in range(SIDES)]
        lengths.append(0)
        while not any(side.found for side in sides):
            lengths[-1] += 1
            for side, beyond in zip(sides, random.random(SIDES) < 0.5, strict=True):
                side.add(beyond=bool(beyond))
    return float(np.mean(lengths))


def slow_and_fast(shape: tuple[int, int], slow_blocks: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal; half of the variance is the same within a block, and like that of its neighbours."""
    fast = random.standard_normal(shape)
    if not slow_blocks:
        return fast
    keep = np.exp(-1 / slow_blocks)
    slow, noise = np.empty(shape[0]), random.standard_normal(shape[0])
    slow[0] = noise[0]
    for block in range(1, shape[0]):
        slow[block] = keep * slow[block - 1] + np.sqrt(1 - keep**2) * noise[block]
    return np.asarray((slow[:, None] + fast) / np.sqrt(2))


def first_warning(ranks: ReferenceRanks, values: NDArray[np.float64]) -> int | None:
    """Number of the block after which one statistic, held against calibration in both directions, is said to drift."""
    sides = SequentialTest(EVERY_BLOCKS), SequentialTest(EVERY_BLOCKS)
    for number, block in enumerate(values, start=1):
        sides[0].add(beyond=ranks.lower(block) > ranks.limit)
        sides[1].add(beyond=ranks.higher(block) > ranks.limit)
        if sides[0].found or sides[1].found:
            return number
    return None


def drawn(  # noqa: PLR0913, PLR0917 - numbers of one line
    images: int, blocks: int, shift: float, slow_blocks: float, random: np.random.Generator, parts: int = BLOCK_PARTS
) -> int | None:
    """The same for one new calibration and its line."""
    values = slow_and_fast((blocks, parts), slow_blocks, random) + shift
    return first_warning(ReferenceRanks(random.standard_normal(images), 0.0, sequential=False), values)


def false_warnings(runs: int, days: int) -> Table:
    """Nothing drifts."""
    table = Table("good images", "slow part", "warned", "allowed", box=box.MARKDOWN)
    random = np.random.default_rng(0)
    for images in (20, 100, 1000):
        for slow_blocks in (0.0, 0.25, 1.0, 4.0, 12.0):
            warned = sum(drawn(images, days * BLOCKS_A_DAY, 0.0, slow_blocks, random) is not None for _ in range(runs))
            slow = f"{slow_blocks * BLOCK_S / 3600:g} h" if slow_blocks else "none"
            table.add_row(str(images), slow, f"{warned} of {runs}", f"{runs * days / FALSE_ALARM_DAYS / 4:.1f}")
    return table


def delays(runs: int, days: int) -> Table:
    """A statistic that has shifted all at once."""
    table = Table("shift", *(f"{images} images" for images in (20, 100, 1000)), box=box.MARKDOWN)
    random = np.random.default_rng(1)
    for shift in (0.1, 0.2, 0.3, 0.5, 1.0, 3.0):
        cells = []
        for images in (20, 100, 1000):
            found = [drawn(images, days * BLOCKS_A_DAY, shift, 0, random, PARTS_AN_HOUR) for _ in range(runs)]
            known = [each for each in found if each is not None]
            median = f"{np.median(known) * PARTS_AN_HOUR:.0f} parts" if known else "-"
            cells.append(f"{median}, {len(known)} of {runs}")
        table.add_row(f"{shift:g} sigma", *cells)
    return table


def creeping(runs: int) -> Table:
    """Scores grow by two deviations in two months: true rejects at the warning, by those of the beginning (1 %)."""
    table = Table("good images", "parts an hour", "rejects at the warning, median", "highest", box=box.MARKDOWN)
    random = np.random.default_rng(3)
    steps = np.linspace(0, 2, 60 * BLOCKS_A_DAY)
    for images in (100, 500, 1000):
        for parts in (60, 360):
            line = random.standard_normal((runs, images))
            times = [rejects_when_told(good, steps, parts, random) for good in line]
            table.add_row(str(images), str(parts), f"x {np.median(times):.1f}", f"x {max(times):.1f}")
    return table


def rejects_when_told(
    good: NDArray[np.float64], steps: NDArray[np.float64], parts: int, random: np.random.Generator
) -> float:
    """True rejects when scores alone have been told to drift, by those at the beginning."""
    law = NormalDist()
    threshold = law.inv_cdf(0.99)
    scale = 10.0  # scores are positive
    reference = {"good_scores": good + scale, "brightness": np.full((len(good), 3), 128.0)}
    watch = DriftWatch(reference, threshold + scale)
    for block, step in enumerate(steps):
        scores = random.standard_normal(parts) + step + scale
        for part, score in enumerate(scores):
            watch.add((score, 0.0, 0.0, 0.0), round((block + part / (parts - 1)) * BLOCK_S * 1e9))
        if watch.report.cause is not None:
            return (1 - law.cdf(threshold - step)) / 0.01
    return float("nan")


# Real pictures


@dataclass
class Frames:
    """Pictures to learn from."""

    frames: list[Image]
    sequential: bool
    source: str = "frames"
    skipped: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        return ((f"{number:05}", frame) for number, frame in enumerate(self.frames))

    def again(self, names: Collection[str]) -> Iterator[tuple[str, Image]]:
        return ((name, frame) for name, frame in self if name in names)


def taught(
    frames: list[Image], *, sequential: bool, folder: str, rate: float = 0.01, backbone: str = "filterbank"
) -> Bundle:
    """A bundle of these."""
    settings = Settings(Preprocess(mtd.SIDE, mtd.SIDE), false_reject_rate=rate, threads=mtd.THREADS)
    path = Path(folder) / f"{len(list(Path(folder).iterdir()))}"
    return calibrate(Frames(frames, sequential), mtd.backbone_of(backbone), settings, path, lambda *_: None)


def watched(bundle: Bundle, frames: list[Image]) -> NDArray[np.float64]:
    """Score and appearance of each, (n, 4)."""
    with OnnxRuntimeEngine(bundle.network.read_bytes(), mtd.THREADS) as engine:
        prepared = [bundle.preprocess(frame) for frame in frames]
        return np.array([(engine(each).score, *appearance(each)) for each in prepared])


def play(watch: DriftWatch, rows: Any, blocks: int) -> int | None:  # noqa: ANN401 - number to row
    """Parts of so many blocks, at PARTS_AN_HOUR each; how many had come when there was a warning."""
    step_ns = round(BLOCK_S / (PARTS_AN_HOUR - 1) * 1e9) + 1
    for part in range(blocks * PARTS_AN_HOUR):
        watch.add(tuple(rows(part)), part * step_ns)
        if watch.report.cause is not None:
            return part + 1
    return None


def tiles(images: int, days: int, random: np.random.Generator, folder: str) -> Table:
    """Tiles that were not learnt come by, ever worse."""
    paths = sorted((mtd.MTD / "MT_Free" / "Imgs").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    good = [read_image(paths[index]) for index in order]
    bundle, new = taught(good[:images], sequential=False, folder=folder), good[761:]
    reference, threshold = bundle.reference(), bundle.manifest.working_point.threshold
    parts = days * BLOCKS_A_DAY * PARTS_AN_HOUR
    table = Table(
        f"{images} tiles learnt",
        "warned at",
        "cause",
        "rejects then",
        "predicted",
        "rejects double at",
        box=box.MARKDOWN,
    )
    for name, fault in FAULTS.items():
        levels = np.stack(
            [watched(bundle, [fault(each, level / LEVELS) for each in new]) for level in range(LEVELS + 1)]
        )
        rejects = (levels[:, :, 0] > threshold).mean(axis=1)
        double = 2 * max(rejects[0], 0.01)
        doubled = np.argmax(rejects >= double) if (rejects >= double).any() else None

        def row(part: int, levels: NDArray[np.float64] = levels) -> NDArray[np.float64]:
            level = min(int(part / parts * LEVELS + random.random()), LEVELS)
            return np.asarray(levels[level, random.integers(levels.shape[1])])

        watch = DriftWatch(reference, threshold)
        at = play(watch, row, days * BLOCKS_A_DAY)
        predicted = watch.report.predicted_rate
        then = "" if at is None else f"{np.interp(at / parts * LEVELS, np.arange(LEVELS + 1), rejects):.1%}"
        table.add_row(
            name,
            "never" if at is None else f"{at / parts:.0%} of the way, part {at}",
            watch.report.cause,
            then,
            "" if predicted is None else f"{predicted:.1%}",
            f"not ({rejects[-1]:.1%} at the end)"
            if doubled is None
            else f"{doubled / LEVELS:.0%}, part {doubled * parts // LEVELS}",
        )
    return table


def unchanged(images: int, seeds: int, folder: str) -> Table:
    """New good tiles, each once: how they rank on average over random splits, where nothing has changed."""
    paths = sorted((mtd.MTD / "MT_Free" / "Imgs").glob("*.jpg"))
    good = [read_image(path) for path in paths]
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(good))
        bundle = taught([good[index] for index in order[:images]], sequential=False, folder=folder)
        rows, threshold = (
            watched(bundle, [good[index] for index in order[761:]]),
            bundle.manifest.working_point.threshold,
        )
        reference = bundle.reference()
        passed = rows[rows[:, 0] <= threshold]
        for place, (name, values) in enumerate(good_statistics(reference).items()):
            ranks = ReferenceRanks(values[reference["good_scores"] <= threshold], 0.0, sequential=False)
            shares.setdefault(name, []).append(ranks.higher(passed[:, place]))
        shares.setdefault("high scores", []).append(
            HighScores(reference["good_scores"], sequential=False).share(rows[:, 0])
        )
    table = Table(f"{images} tiles learnt", "share, mean", "lowest", "highest", box=box.MARKDOWN)
    for name, each in shares.items():
        table.add_row(name, *(f"{value:.3f}" for value in (np.mean(each), min(each), max(each))))
    return table


def clips(folder: str) -> Table:
    """The second half of a clip against its first, without end."""
    table = Table("clip", "frames", "statistic", "share", "limit", "warned", box=box.MARKDOWN)
    for name in CLIPS:
        video, frames = cv2.VideoCapture(str(mtd.DATA / "conveyor" / name)), []
        while (frame := video.read()[1]) is not None:
            frames.append(frame)
        half = len(frames) // 2
        bundle = taught(frames[:half], sequential=True, folder=folder, rate=0.05)
        threshold = bundle.manifest.working_point.threshold
        rows = watched(bundle, frames[half:])
        watch = DriftWatch(bundle.reference(), threshold)
        at = play(watch, lambda part, rows=rows: rows[part % len(rows)], 300)
        for each in watch.report.findings:
            shown = f"{each.direction} {each.share:.2f}", f"{each.limit:.2f}", "yes" if each.found else "no"
            table.add_row(name.split("-")[0], str(half), each.statistic, *shown)
        for statistic, why in watch.report.off.items():
            table.add_row(name.split("-")[0], str(half), statistic, "off", why, "")
        mtd.console.print(f"{name}: {at}; rejects {(rows[:, 0] > threshold).mean():.1%}")
    return table


def main() -> None:
    """Print the tables of README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_args()
    runs, days = arguments.runs, arguments.days
    random = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        tables: dict[str, Callable[[], object]] = {
            "coins": lambda: f"fair coins: stated 100 blocks, found {coins(100, runs, random):.0f}",
            "false": lambda: false_warnings(runs, days),
            "delays": lambda: delays(runs // 2, days),
            "creeping": lambda: creeping(20),
            "unchanged": lambda: unchanged(100, 10, folder),
            "unchanged761": lambda: unchanged(761, 10, folder),
            "tiles": lambda: tiles(761, days, random, folder),
            "tiles100": lambda: tiles(100, days, random, folder),
            "clips": lambda: clips(folder),
        }
        for name in arguments.only or tables:
            mtd.console.print(tables[name]())


if __name__ == "__main__":
    main()
