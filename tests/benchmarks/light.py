"""Are changes of light or focus distinguished from runs of defects? Rows of twenty rejects, from real pictures."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import mtd
import numpy as np
from drift import taught
from rich import box
from rich.table import Table

from agent.drift.sudden_change import ROW, SuddenChange
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image

    Change = Callable[[Image], Image]

ROWS = 40
MOST_LEARNT, MOST_SHOWN = 200, 40
SETS = ("mtd", "ksdd", "metal_plate", "hazelnut")
SIZES = (0.06, 0.12, 0.24, 0.4)


def times(gain: float | Sequence[float]) -> Change:
    """Light times a gain, or one for blue, green and red."""
    return lambda image: np.clip(image * np.asarray(gain), 0, 255).astype(np.uint8)


def across(image: Image, gains: Sequence[float]) -> Image:
    """Light that changes from left to right."""
    along = np.interp(np.linspace(0, 1, image.shape[1]), np.linspace(0, 1, len(gains)), gains)
    return (image * along[None, :, None]).astype(np.uint8)


LIGHTS: Mapping[str, Change] = {
    "light x 0.8": times(0.8),
    "light x 0.6": times(0.6),
    "light x 1.3": times(1.3),
    "veil of 20": lambda image: np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8),
    "10 % redder": times((0.9, 1.0, 1.1)),
    "focus, sigma 2": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8),
    "falls off to 0.6": lambda image: across(image, (0.6, 1.0)),
    "one half x 0.6": lambda image: across(image, (0.6, 0.6, 0.6, 1.0, 1.0, 1.0)),
}


def at_one_place(kind: str, side: int, seed: int) -> Change:
    """The same defect at the same place of every part."""

    def change(image: Image) -> Image:
        random = np.random.default_rng(seed)
        (y, x), (v, u) = (random.integers(0, np.array(image.shape[:2]) - side) for _ in range(2))
        changed = image.copy()
        place = np.s_[y : y + side, x : x + side]
        if kind == "scratch":
            end = int(x) + side, int(y) + side
            return np.asarray(cv2.line(changed, (int(x), int(y)), end, (10,) * 3, 2), np.uint8)
        drawn: dict[str, Any] = {
            "piece of elsewhere": image[v : v + side, u : u + side],
            "shade": image[place] * 0.6,
            "black": 0,
            "white": 255,
            "red": (20, 20, 200),
            "rough": np.clip(image[place] + np.random.default_rng(1).normal(0, 40, (side, side, 3)), 0, 255),
        }
        changed[place] = drawn[kind]
        return np.asarray(changed, np.uint8)

    return change


KINDS = ("scratch", "piece of elsewhere", "shade", "black", "white", "red", "rough")


def images_of(name: str) -> tuple[list[Image], list[Image], list[Image]]:
    """Good ones to learn, other good ones, defective ones."""
    if name == "mtd":
        split = mtd.split_by_tile()
        order = np.random.default_rng(0).permutation(len(split.learnt))[:MOST_LEARNT]
        test = {bad: [each.path for each in split.test if each.defective is bad] for bad in (False, True)}
        paths = [[split.learnt[index] for index in order], test[False], test[True]]
    else:
        folder = mtd.DATA / name
        bad = [path for path in sorted((folder / "test").iterdir()) if path.name not in {"good", "defect_trainpart"}]
        folders = [folder / "train" / "good"], [folder / "test" / "good"], bad
        paths = [[path for each in kind for path in sorted(each.glob("*.[jp][pn]g"))] for kind in folders]
    learnt, good, defective = ([read_image(path) for path in each] for each in paths)
    return learnt[:MOST_LEARNT], good[:MOST_SHOWN], defective[:: max(1, len(defective) // 70)]


def named(bundle: Bundle, prepared: Sequence[Image], rows: int) -> tuple[float, float]:
    """Share of network inputs that are rejected, and share of rows of these that are called a sudden change."""
    reference, random = bundle.reference(), np.random.default_rng(0)
    with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
        scored = [(engine(each), each) for each in prepared]
    rejects = [each for each in scored if each[0].score > bundle.manifest.working_point.threshold]
    found = 0
    for _ in range(rows if rejects else 0):
        watch = SuddenChange(reference)
        for index in random.integers(0, len(rejects), ROW):
            inference, image = rejects[index]
            watch.note_reject(inference.score, inference.map, image, 0)
        found += watch.since_ms is not None
    return len(rejects) / len(prepared), found / rows


def main() -> None:
    """Print the tables of README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--backbones", nargs="+", choices=mtd.BACKBONES, default=mtd.BACKBONES[:2])
    arguments = parser.parse_args()
    table = Table("", *(f"{name}, {each}" for name in arguments.sets for each in arguments.backbones), box=box.MARKDOWN)
    cells: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            learnt, good, defective = images_of(name)
            for backbone in arguments.backbones:
                path = Path(folder, name, backbone)
                path.mkdir(parents=True)
                bundle = taught(learnt, sequential=False, folder=str(path), backbone=backbone)
                shown = {light: [change(each) for each in good] for light, change in LIGHTS.items()}
                for light, images in {**shown, "defects of the set": defective}.items():
                    rejected, share = named(bundle, [bundle.preprocess(each) for each in images], ROWS)
                    cells.setdefault(light, []).append(f"{rejected:.0%}: {share:.0%}" if rejected else "0%")
                cells.setdefault("one defect, one place", []).append(defects_named(bundle, good))
    for light, row in cells.items():
        table.add_row(light, *row)
    mtd.console.print(table)


def defects_named(bundle: Bundle, good: Sequence[Image]) -> str:
    """How many kinds of defect at one place are called a sudden change in some row, of those that are rejected."""
    prepared = [bundle.preprocess(each) for each in good[: MOST_SHOWN // 2]]
    made, wrong = 0, []
    for kind in KINDS:
        for size in SIZES:
            for seed in (5, 6):
                change = at_one_place(kind, round(size * min(prepared[0].shape[:2])), seed)
                rejected, share = named(bundle, [change(each) for each in prepared], ROWS // 4)
                made += rejected > 0
                wrong += [f"{kind} {size:g}"] if share else []
    return f"{len(wrong)} of {made}" + (f" ({', '.join(sorted(set(wrong)))})" if wrong else "")


if __name__ == "__main__":
    main()
