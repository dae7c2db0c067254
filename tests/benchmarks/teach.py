"""A new product taught on the device: the bolt clip's first half, then defects pasted into its second half.

The bundle in force knows another product (magnetic tiles); nothing but its backbone is used, and with
``--without-weights`` not even that. Sizes are shares of the shorter side of the inspected picture.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from rich import box
from rich.table import Table

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.imaging.synthetic_defects import KINDS, SHARES, side_of, with_defect
from calibration.network.fusion import without_head
from calibration.update.base_network import base_network_of
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle
from calibration.workstation.dataset import good_images

if TYPE_CHECKING:
    from calibration.update.base_network import OtherBackbone

CLIP = "bolt-multi-size-detection.gif"
EACH = 60
TILES = 60


def main() -> None:
    """One row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbone", default="filterbank", choices=mtd.BACKBONES)
    parser.add_argument("--without-weights", action="store_true", help="teach the filterbank, whatever the bundle has")
    parser.add_argument("--clip", default=CLIP)
    parser.add_argument("--false-reject-rate", type=float, default=0.02)
    arguments = parser.parse_args()
    frames = [image for _, image in good_images(mtd.DATA / "conveyor" / arguments.clip)]
    taught, later = frames[: len(frames) // 2], frames[len(frames) // 2 :]
    preprocess = Preprocess(mtd.SIDE, mtd.SIDE)
    other: OtherBackbone | None = "filterbank" if arguments.without_weights else None
    with tempfile.TemporaryDirectory() as folder:
        tiles = list(mtd.split().learnt)[:TILES]
        old = mtd.fit(mtd.backbone_of(arguments.backbone), tiles, mtd.settings_of(), Path(folder, "old"))
        with (
            OnnxRuntimeEngine(without_head(base_network_of(old, other).network), mtd.THREADS) as engine,
            PartStore(Path(folder), engine) as collection,
        ):
            for number, frame in enumerate(taught):
                collection.add(f"frame {number}", preprocess(frame))
            plan = RefitPlan("teach", false_reject_rate=arguments.false_reject_rate, backbone=other)
            began_s = time.perf_counter()
            bundle = refit_bundle(old, collection, plan, Path(folder, "new"), lambda *_: None).bundle
            took_s = time.perf_counter() - began_s
        size_mb = sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6
        threshold = bundle.manifest.working_point.threshold
        random = np.random.default_rng(0)
        prepared = [preprocess(frame) for frame in later]
        pairs = random.integers(len(prepared), size=(EACH, 2))
        table = Table("defect, share of the shorter side", *KINDS, "all", box=box.MARKDOWN)
        with OnnxRuntimeEngine(bundle.network, mtd.THREADS) as engine:
            rejected = np.mean([engine(frame).score > threshold for frame in prepared])
            for size, share in enumerate(SHARES):
                found = {
                    name: [
                        engine(with_defect(frame, len(KINDS) * size + kind, random, other=other)).score > threshold
                        for frame, other in ([prepared[index] for index in pair] for pair in pairs)
                    ]
                    for kind, name in enumerate(KINDS)
                }
                rates = [f"{np.mean(each):.0%}" for each in found.values()]
                table.add_row(
                    f"1/{1 / share:.0f} ({side_of(mtd.SIDE, share)} px)", *rates, f"{np.mean(list(found.values())):.0%}"
                )
    taught_with = bundle.manifest.backbone.name
    mtd.console.print(f"from {arguments.backbone} to {taught_with}, learnt in {took_s:.1f} s, {size_mb:.0f} MB;")
    mtd.console.print(f"{arguments.clip}: {len(taught)} frames taught, {len(later)} later ones,")
    mtd.console.print(f"of which {rejected:.1%} are rejected as they are; promised {arguments.false_reject_rate:.1%}")
    mtd.console.print(table)


if __name__ == "__main__":
    main()
