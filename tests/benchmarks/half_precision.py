"""The GPU flavour, FP16 in the backbone, against FP32: scores and AUROC on magnetic tiles, and frames that saturate."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import detectors
import mtd
import numpy as np
import onnx
from fp16 import NodeByNode
from rich import box
from rich.table import Table
from sklearn.metrics import roc_auc_score

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.network.half_precision import half_precision
from calibration.workstation.cli.detector_options import parse_detector
from calibration.workstation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.workstation.labelled_images import Labelled

BACKBONES = ("filterbank", "lite0", "mobilenet_v2", "lite0+filterbank")
LIMIT = 0.01


@dataclass(frozen=True)
class Scored:
    """Scores of the same frames in both precisions, (n,)."""

    single: NDArray[np.float64]
    half: NDArray[np.float64]

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Relative, (n,)."""
        deviations: NDArray[np.float64] = np.abs(self.half / self.single - 1)
        return deviations


def scored(network: onnx.ModelProto, frames: Sequence[Image]) -> Scored:
    """Frames in ONNX Runtime as on the line, and in half precision."""
    half = NodeByNode(half_precision(network))
    with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
        single = [engine(frame).score for frame in frames]
    return Scored(np.array(single), np.array([float(half(frame[None])["score"][0]) for frame in frames]))


def frames_of(images: Sequence[Labelled]) -> list[Image]:
    """Read and resized."""
    return [Preprocess(mtd.SIDE, mtd.SIDE)(read_image(image.path)) for image in images]


def extremes(bundle: Bundle) -> dict[str, Image]:
    """Frames whose scores leave the usual range."""
    damaged = bundle.golden().frames[-1]
    return {"all 0": np.zeros_like(damaged), "all 255": np.full_like(damaged, 255), "golden, damaged": damaged}


def fitted(backbone: str, detector: str, folder: Path) -> Bundle:
    """Learnt from all good tiles of the protocol."""
    settings = Settings(Preprocess(mtd.SIDE, mtd.SIDE), parse_detector(detector), threads=1)
    return mtd.fit(detectors.backbone_of(backbone), mtd.split().learnt, settings, folder)


def _add_row(table: Table, name: tuple[str, str], bundle: Bundle, images: Sequence[Labelled]) -> Scored:
    network = onnx.load(bundle.network)
    result = scored(network, frames_of(images))
    defective = np.array([image.label != "good" for image in images])
    threshold = bundle.working_point.threshold
    changed = int(((result.single > threshold) != (result.half > threshold)).sum())
    off = result.deviations
    table.add_row(
        *name,
        *(f"{roc_auc_score(defective, scores):.4f}" for scores in (result.single, result.half)),
        *(f"{value:.2%}" for value in (np.median(off), np.percentile(off, 99), off.max())),
        f"{int((off > LIMIT).sum())} of {len(off)}",
        str(changed),
        *(f"{each.ByteSize() / 1e6:.1f}" for each in (network, half_precision(network))),
    )
    return result


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--detectors", nargs="+", default=["mean_shift"], help="as `benchmark --detector`")
    arguments = parser.parse_args()
    tiles = Table("backbone", "detector", box=box.MARKDOWN)
    for title in ("AUROC FP32", "FP16", "median", "99 %", "max", "above 1 %", "verdicts changed", "MB", "MB FP16"):
        tiles.add_column(title, justify="right")
    saturated = Table("backbone", "detector", "frame", "FP32", "FP16", box=box.MARKDOWN)
    images = mtd.split().test
    for backbone in arguments.backbones:
        for detector in arguments.detectors:
            with tempfile.TemporaryDirectory() as folder:
                bundle = fitted(backbone, detector, Path(folder) / "bundle")
                result = _add_row(tiles, (backbone, detector), bundle, images)
                worst = int(result.deviations.argmax())
                mtd.console.print(f"{backbone}, {detector}: {images[worst].path.name} is off most")
                frames = extremes(bundle)
                scores = scored(onnx.load(bundle.network), list(frames.values()))
                for frame, single, half in zip(frames, scores.single, scores.half, strict=True):
                    saturated.add_row(backbone, detector, frame, f"{single:.6g}", f"{half:.6g}")
    mtd.console.print(tiles)
    mtd.console.print(saturated)


if __name__ == "__main__":
    main()
