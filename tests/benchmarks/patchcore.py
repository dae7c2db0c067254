"""PatchCore on magnetic tiles: the order of averaging and joining, and what the bank is chosen from."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import mtd
import numpy as np
from sklearn.metrics import roc_auc_score

from calibration.detectors.embedding import join_levels
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.memory_bank import gather, squared_lengths
from calibration.detectors.patchcore import PatchCore
from calibration.detectors.patchcore_head import PatchCoreHead
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network, reduced_shape
from calibration.onnx_graph import FeatureMap
from calibration.workstation.evaluation.splits import labelled_sets
from calibration.workstation.torch_models.timm_backbone import timm_backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.onnx_graph import GraphBuilder
    from calibration.workstation.evaluation.splits import Split

    Float32 = NDArray[np.float32]

_BLOCK = 20_000
SPLITS = {"by tile": mtd.split_by_tile, "protocol": mtd.split}


class WithoutZeros(PatchCore):
    """Averages over the cells that there are."""

    __slots__ = ()

    def _aggregated(self, graph: GraphBuilder, level: FeatureMap, levels: int) -> FeatureMap:
        del levels
        window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4}
        return FeatureMap(graph.add("AveragePool", level.name, count_include_pad=0, **window), level.shape)  # type: ignore[arg-type]


class JoinedFirst(WithoutZeros):
    """Averages what was interpolated already, as before the order of the paper."""

    __slots__ = ()

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        del levels
        return join_levels(graph, [self._aggregated(graph, features, 1)])


def exhaustive(store: FeatureStore, learnt: list[int], tested: list[int]) -> list[float]:
    """Scores by the distance to every patch, with the weight of eq. 7 (``coreset=1`` in less memory)."""
    rows = np.arange(len(learnt) * int(np.prod(store.shape[1:])))
    bank = gather(store.batches(learnt), rows, store.shape[0])
    mean = bank.mean(axis=0)
    bank -= mean
    lengths, scores = squared_lengths(bank), []
    for features in (each for batch in store.batches(tested) for each in batch):
        patches = features.reshape(store.shape[0], -1).T - mean
        parts = [
            lengths[start : start + _BLOCK] - 2 * (patches @ bank[start : start + _BLOCK].T) for start in rows[::_BLOCK]
        ]
        nearest = np.stack([part.min(axis=1) for part in parts])
        worst = int((nearest.min(axis=0) + squared_lengths(patches)).argmax())
        block = int(nearest[:, worst].argmin())
        entry = bank[block * _BLOCK + int(parts[block][worst].argmin())]
        around = np.argpartition(np.square(bank - entry).sum(axis=1), 8)[:9]
        far = np.linalg.norm(bank[around] - patches[worst], axis=1)
        share = np.exp(far - far.max())
        scores.append(float((1 - share.min() / share.sum()) * far.min()))
    return scores


def main() -> None:
    """Print a line for each order, or for each bank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banks", action="store_true", help="banks on one grid instead of orders on two")
    banks = parser.parse_args().banks
    stages = ("blocks.3" if banks else "blocks.2", "blocks.4")
    backbone = timm_backbone("tf_efficientnet_lite0", stages, mtd.LITE0, mtd.SIDE, mtd.SIDE)
    few = 50_000
    kinds = {kind.__name__: kind(candidates=few) for kind in (JoinedFirst, WithoutZeros, PatchCore)}
    if banks:
        kinds = {
            f"{limit or 'all'}, {share:.0%}": PatchCore(candidates=limit, coreset=share)
            for limit, share in ((few, 0.01), (None, 0.01), (None, 0.1))
        }
    images = list(labelled_sets(mtd.MTD)[0].test)
    index = {image.path: number for number, image in enumerate(images)}

    def rows(split: Split) -> tuple[list[int], list[int], list[bool]]:
        tested = [index[image.path] for image in split.test]
        return [index[path] for path in split.learnt], tested, [images[each].defective for each in tested]

    for title, detector in kinds.items():
        network = feature_network(backbone, detector, divide_brightness=False)
        shape = reduced_shape(network)
        with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder), shape) as store:
            with OnnxRuntimeEngine(network.SerializeToString(), 1) as engine:
                for image in images:
                    store.append(engine.reduced(Preprocess(mtd.SIDE, mtd.SIDE)(read_image(image.path))))
            for name, split in SPLITS.items():
                learnt, tested, truth = rows(split())
                start_s = time.process_time()
                head = detector._head(store, learnt)
                taken_s = time.process_time() - start_s
                assert isinstance(head, PatchCoreHead)
                scores = np.concatenate([scored.score for scored in store.scores(tested, head)])
                auroc = roc_auc_score(truth, scores)
                mtd.console.print(
                    f"{title}, {name}: {auroc:.4f}, {len(head.bank)} entries in {taken_s:.0f} s of one core"
                )
            if banks and title == next(reversed(kinds)):
                for name, split in SPLITS.items():
                    learnt, tested, truth = rows(split())
                    mtd.console.print(
                        f"exhaustive, {name}: {roc_auc_score(truth, exhaustive(store, learnt, tested)):.4f}"
                    )


if __name__ == "__main__":
    main()
