"""Patch SVDD over the length of its training, against random encoders and raw patches.

``train`` keeps the encoders after some numbers of steps, and continues where it was interrupted; ``curve`` evaluates
what there is of them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mtd
import numpy as np
import torch
from rich import box
from rich.table import Table
from sklearn.metrics import roc_auc_score

from calibration.detectors.contract import Folds
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.patch_svdd import COARSE, FINE, PatchSvdd
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess, prepare_image
from calibration.imaging.score_map import cover_region
from calibration.network.fusion import feature_network, fused_network, reduced_shape
from calibration.progress import silent
from calibration.terminal import progress_bar
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.evaluation.evaluation import _mask, _pixel_auroc, sklearn_metrics
from calibration.workstation.evaluation.pixel_metrics import PixelHistogram
from calibration.workstation.evaluation.splits import labelled_sets, splits
from calibration.workstation.fit.raw_patches import raw_patches
from calibration.workstation.settings import Settings
from calibration.workstation.torch_models.patch_svdd.checkpoint import Checkpoint
from calibration.workstation.torch_models.patch_svdd.encoders import Encoders, position_classifier
from calibration.workstation.torch_models.patch_svdd.training import encoder_backbone, train, training_frames

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone
    from calibration.workstation.evaluation.splits import Split
    from calibration.workstation.torch_models.patch_svdd.patch_pairs import Frames

SNAPSHOTS = (100, 300, 1000, 3000, 6000, 10_000, 15_000, *range(20_000, 200_001, 5000))
SEEDS = range(5)
_PAIRS = 400
_MEMORY_MIB = 16_000


class KeptCheckpoint(Checkpoint):
    """Keeps what there was after each of ``SNAPSHOTS`` as well."""

    def keep(self, steps: int, *parts: Any) -> None:  # noqa: ANN401 - torch's modules and optimisers share no type
        """See Checkpoint."""
        super().keep(steps, *parts)
        if steps in SNAPSHOTS:
            shutil.copy(self.path, self.path.with_name(f"{steps:06}.pt"))


def evaluated(split: Split, backbone: Backbone, detector: PatchSvdd, side: int) -> list[str]:
    """Image AUROC, pixel AUROC and PRO of the network with these encoders."""
    preprocess = Preprocess(side, side)
    extractor = feature_network(backbone, detector, divide_brightness=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        FeatureStore(Path(folder), reduced_shape(extractor)) as store,
        OnnxRuntimeEngine(extractor.SerializeToString(), mtd.THREADS) as engine,
    ):
        for path in split.learnt:
            store.append(engine.reduced(prepare_image(preprocess, str(path), read_image(path))[0]))
        head = detector.fit(store, Folds([range(len(split.learnt))]), backbone.level_channels).head
    network = fused_network(backbone, detector, head, divide_brightness=False).SerializeToString()
    scores, pixels = [], PixelHistogram()
    with OnnxRuntimeEngine(network, mtd.THREADS) as engine:
        for image in split.test:
            frame = read_image(image.path)
            inference = engine(prepare_image(preprocess, str(image.path), frame)[0])
            scores.append(inference.score)
            if image.mask or not image.defective:
                pixels.add(cover_region(inference.map, (1, 1)), _mask(image, frame))
    truth = [image.defective for image in split.test]
    figures = roc_auc_score(truth, scores), _pixel_auroc(sklearn_metrics(), pixels), pixels.region_overlap()
    return [f"{figure:.3f}" for figure in figures]


def restored(path: Path, frames: Frames) -> tuple[Encoders, list[str]]:
    """The encoders of a snapshot, and how often they and their classifiers name the place of a neighbour."""
    encoders, classifiers = Encoders(), torch.nn.ModuleList(position_classifier() for _ in range(2))
    states = torch.load(path, weights_only=True)["states"]
    torch.nn.ModuleList([encoders, classifiers]).load_state_dict(states[0])
    shares = []
    for field, classifier in zip((FINE, COARSE), classifiers, strict=True):
        encode = encoders.small if field == FINE else encoders.large
        first, second, directions = frames.neighbours(_PAIRS, field.side, np.random.default_rng(1))
        with torch.no_grad():
            guess = classifier(encode(torch.from_numpy(first)) - encode(torch.from_numpy(second))).argmax(dim=1)
        shares.append(f"{np.mean(guess.numpy() == directions):.0%}")
    return encoders, shares


def print_curve(split: Split, frames: Frames, detector: PatchSvdd, arguments: argparse.Namespace) -> None:
    """A line for raw patches, one for each random encoder, and one for each snapshot."""
    table = Table("encoders", *("image AUROC", "pixel AUROC", "PRO", "position 32", "position 64"), box=box.MARKDOWN)

    def row(name: str, backbone: Backbone, shares: list[str]) -> None:
        cells = name, *evaluated(split, backbone, detector, arguments.side), *shares
        mtd.console.print(*cells, sep=" | ")
        table.add_row(*cells)

    if "raw" in arguments.rows:
        row("raw patches", raw_patches(arguments.side, arguments.side), ["", ""])
    for seed in SEEDS if "random" in arguments.rows else ():
        torch.manual_seed(seed)
        row(
            f"random, seed {seed}", encoder_backbone(Encoders(he=detector.encoders == "he"), frames, detector), ["", ""]
        )
    for path in sorted(arguments.folder.glob("[0-9]*.pt")) if "trained" in arguments.rows else ():
        encoders, shares = restored(path, frames)
        row(f"{int(path.stem):,} steps", encoder_backbone(encoders, frames, detector), shares)
    mtd.console.print(table)


def main() -> None:
    """Train, or print the curve."""
    default = PatchSvdd()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("what", choices=("train", "curve"))
    parser.add_argument("folder", type=Path, help="where the encoders are kept")
    parser.add_argument("--set", default="metal_plate", help="in MVTec layout")
    parser.add_argument("--side", type=int, default=mtd.SIDE, help="of the network input")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--encoders", choices=("he", "paper"), default=default.encoders, help="how they begin")
    parser.add_argument("--entries", type=int, default=default.entries, help="of each bank; 0: all patches")
    parser.add_argument("--rows", nargs="+", choices=("raw", "random", "trained"), default=["raw", "random", "trained"])
    arguments = parser.parse_args()
    torch.set_num_threads(mtd.THREADS)
    detector = PatchSvdd(steps=arguments.steps, encoders=arguments.encoders, entries=arguments.entries or None)
    (split,) = splits(labelled_sets(mtd.DATA / arguments.set)[0], seeds=1, folds=None, images=None)
    preprocess = Preprocess(arguments.side, arguments.side)
    settings = Settings(preprocess, detector, memory_limit_mib=_MEMORY_MIB)
    images = ImageFiles(arguments.set, split.learnt)
    frames, digest = training_frames(images, settings, silent, mean_image=detector.encoders == "paper")
    if arguments.what == "curve":
        print_curve(split, frames, detector, arguments)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = KeptCheckpoint(arguments.folder / "checkpoint.pt", {"images": digest})
    with progress_bar() as progress:
        train(frames, detector, checkpoint, progress)


if __name__ == "__main__":
    main()
