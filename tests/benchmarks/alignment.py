"""What displaced parts cost, and what ``fit --align`` gives back.

Each picture is shown through a window that leaves 12 pixels of it on every side. Where the window is displaced, so is
the part: by up to 12 pixels along each side of the frame, on the test images only or on all. The region of interest is
224 x 224 pixels, as is the network's input, so that a pixel of the frame is one of the network; what is around it is of
the picture itself.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import mtd
import numpy as np
from rich import box
from rich.table import Table
from sklearn.metrics import roc_auc_score

from agent.demo.conveyor import parts
from calibration.detectors.mean_shift import MeanShift
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.labelled_images import labelled_images
from calibration.workstation.settings import PreprocessRequest, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.imaging.preprocess import Image
    from calibration.workstation.dataset import NamedImage
    from calibration.workstation.evaluation.splits import Split

SHIFT_PX = 12
MARGIN_PX = 20
TAUGHT_FLANGES, TESTED_FLANGES = 200, 600
# Which images are shifted.
CONDITIONS = (("none", "none"), ("none", "test"), ("all", "test"))
SETS = ("mtd", "mtd_by_tile", "flanges", "hazelnut")


@dataclass(frozen=True)
class Parts:
    """Pictures of a set, larger than the window by 12 pixels on every side.

    Attributes:
        align_px: How far the region follows; a flange has a play of its own on the belt.
    """

    good: list[Image]
    test: list[Image]
    defective: list[bool]
    align_px: int


class Shown:
    """Pictures through the window, as ``calibrate`` takes them."""

    source = "shown through a window"
    sequential = False
    left_out: tuple[str, ...] = ()

    def __init__(self, pictures: list[Image], shifts: NDArray[np.int64]) -> None:
        self.skipped: list[str] = []
        self._pictures, self._shifts = pictures, shifts

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[NamedImage]:
        for number, (picture, (right, down)) in enumerate(zip(self._pictures, self._shifts, strict=True)):
            rows, columns = picture.shape[:2]
            top, left = SHIFT_PX - down, SHIFT_PX - right
            yield str(number), picture[top : top + rows - 2 * SHIFT_PX, left : left + columns - 2 * SHIFT_PX]

    def again(self, names: Collection[str]) -> Iterator[NamedImage]:
        return (each for each in self if each[0] in names)


def tiles() -> Parts:
    """Magnetic tiles, each brought to one size; by the protocol."""
    return _tiles(mtd.split())


def other_tiles() -> Parts:
    """Tiles that were not learnt at another exposure."""
    return _tiles(mtd.split_by_tile())


def _tiles(split: Split) -> Parts:
    test = [_of_size(read_image(each.path)) for each in split.test]
    good = [_of_size(read_image(path)) for path in split.learnt]
    return Parts(good, test, [each.defective for each in split.test], SHIFT_PX)


def hazelnuts() -> Parts:
    """Photographs of single nuts on a table, no two alike."""
    root = mtd.DATA / "hazelnut"
    labelled = labelled_images(root)
    good = [_of_size(read_image(path)) for path in sorted((root / "train" / "good").iterdir())]
    test = [_of_size(read_image(each.path)) for each in labelled]
    return Parts(good, test, [each.defective for each in labelled], SHIFT_PX)


def flanges() -> Parts:
    """Of the demo, which have a play of 2.4 pixels and 3 degrees of their own."""
    good = [_of_flange(part.image) for part in parts(TAUGHT_FLANGES, seed=1)]
    tested = list(parts(TESTED_FLANGES, seed=2, defect_every=6))
    return Parts(
        good, [_of_flange(part.image) for part in tested], [part.defect is not None for part in tested], SHIFT_PX + 3
    )


def _of_size(picture: Image) -> Image:
    side = mtd.SIDE + 2 * (SHIFT_PX + MARGIN_PX)
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _of_flange(picture: Image) -> Image:
    return np.asarray(cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), np.uint8)


def preprocess_for(frame: Image) -> Preprocess:
    """With the region of interest in the middle of the window."""
    rows, columns = frame.shape[:2]
    left, top = (columns - mtd.SIDE) // 2, (rows - mtd.SIDE) // 2
    return Preprocess(mtd.SIDE, mtd.SIDE, Region(left, top, mtd.SIDE, mtd.SIDE))


@dataclass(frozen=True)
class Outcome:
    """Of one bundle: image AUROC, share of the test images that were followed, milliseconds for each."""

    auroc: float
    followed: float
    locate_ms: float
    cut_ms: float
    network_ms: float


def outcome(data: Parts, backbone: Backbone, detector: MeanShift, shifted: tuple[str, str], *, align: bool) -> Outcome:
    """Calibrate and test."""
    random = np.random.default_rng(0)
    taught = _shown(data.good, random, shifted=shifted[0] == "all")
    tested = _shown(data.test, random, shifted=shifted[1] == "test")
    preprocess = preprocess_for(next(iter(taught))[1])
    preprocess = learn_preprocess(taught, preprocess, PreprocessRequest(data.align_px if align else None), _silent)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(preprocess, detector, threads=mtd.THREADS)
        bundle = calibrate(taught, backbone, settings, Path(folder) / "bundle", _silent)
        with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
            scores, followed, times_ms = [], [], []
            for _, image in tested:
                clock_s = [time.perf_counter()]
                place = bundle.preprocess.locate(image)
                clock_s.append(time.perf_counter())
                prepared = bundle.preprocess.network_input(image, place.region)
                clock_s.append(time.perf_counter())
                scores.append(engine(prepared).score)
                clock_s.append(time.perf_counter())
                followed.append(place.displacement is not None and not place.too_far)
                times_ms.append(1e3 * np.diff(clock_s))
    return Outcome(
        float(roc_auc_score(data.defective, scores)), float(np.mean(followed)), *np.median(times_ms, axis=0).tolist()
    )


def _shown(pictures: list[Image], random: np.random.Generator, *, shifted: bool) -> Shown:
    shifts = random.integers(-SHIFT_PX, SHIFT_PX, (len(pictures), 2), endpoint=True)
    return Shown(pictures, shifts if shifted else np.zeros_like(shifts))


def _silent(_step: str, _done: int, _total: int) -> None:
    pass


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--backbones", nargs="+", choices=mtd.BACKBONES, default=["filterbank", "lite0"])
    parser.add_argument("--location", choices=("local", "shared"), default="local")
    arguments = parser.parse_args()
    detector = MeanShift(location=arguments.location)
    table = Table("set", "backbone", "taught", "tested", box=box.MARKDOWN)
    for title in ("AUROC", "loss", "aligned", "loss", "followed", "locate ms", "cut ms", "network ms"):
        table.add_column(title, justify="right")
    sources: dict[str, Callable[[], Parts]] = {
        "mtd": tiles,
        "mtd_by_tile": other_tiles,
        "flanges": flanges,
        "hazelnut": hazelnuts,
    }
    for name in arguments.sets:
        data = sources[name]()
        for backbone in arguments.backbones:
            network, still = mtd.backbone_of(backbone), None
            for shifted in CONDITIONS:
                plain, aligned = (outcome(data, network, detector, shifted, align=align) for align in (False, True))
                still = plain.auroc if still is None else still
                words = ["shifted" if each != "none" else "still" for each in shifted]
                for each in (plain, aligned):
                    words += [f"{each.auroc:.3f}", f"{still - each.auroc:+.3f}"]
                times = (f"{ms:.2f}" for ms in (aligned.locate_ms, aligned.cut_ms, aligned.network_ms))
                table.add_row(name, backbone, *words, f"{aligned.followed:.0%}", *times)
                mtd.console.print(name, backbone, *words, f"{aligned.followed:.0%}")
    mtd.console.print(table)


if __name__ == "__main__":
    main()
