"""What Hermann et al.'s published configuration costs: memory of a fit, size and time of its network.

EfficientNet-B4 has random weights here, so nothing is said about what is found. The memory is that of the whole
process, in which PyTorch has exported the backbone.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import mtd
import numpy as np
import onnx
from onnx import numpy_helper

from calibration.backbones.receptive_field import grid_cell
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit.backbone_choice import BackboneChoice, open_backbone
from calibration.workstation.fit.folds import each_alone
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings


def main() -> None:
    """Fit, and compare the network with its backbone alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--runs", type=int, default=25)
    arguments = parser.parse_args()
    preset = PRESETS["hermann2022"]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "random.pt")
        save_random(preset.backbone, weights)
        backbone = open_backbone(BackboneChoice(preset.backbone, preset.stages, weights), preset.size)
        settings = Settings(Preprocess(*preset.size), preset.detector, part_of=each_alone, threads=1)
        before_mib, start_s = peak_mib(), time.perf_counter()
        images = ImageFiles(str(mtd.MTD), mtd.split().learnt[: arguments.images])
        bundle = calibrate(images, backbone, settings, Path(folder, "bundle"), lambda *_: None)
        fit_s = time.perf_counter() - start_s
        mtd.console.print(f"{arguments.images} images, {preset.size}, {grid_cell(backbone)}")
        mtd.console.print(f"fit: {fit_s:.0f} s, peak {peak_mib():,.0f} MiB, {before_mib:,.0f} MiB before it")
        alone = feature_network(backbone, preset.detector, divide_brightness=False).SerializeToString()
        compare(bundle.network.read_bytes(), alone, preset.size, arguments.runs)


def save_random(name: str, path: Path) -> None:
    """Random weights of a timm model."""
    import timm  # noqa: PLC0415 - torch takes seconds
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    torch.save(timm.create_model(name, pretrained=False).state_dict(), path)


def peak_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(network: bytes, alone: bytes, size: tuple[int, int], runs: int) -> None:
    """Sizes, and times in turn, so that neighbours on this machine slow both."""
    arrays = {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(network).graph.initializer}
    kernel = arrays["head.whitening"]
    mtd.console.print(
        f"network {len(network) / 1e6:.1f} MB, its convolution {kernel.shape} {kernel.nbytes / 1e6:.1f} MB; "
        f"backbone alone {len(alone) / 1e6:.1f} MB"
    )
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    times_ms = np.empty((runs, 2))
    with OnnxRuntimeEngine(network, 1) as whole, OnnxRuntimeEngine(alone, 1) as part:
        for row in range(runs):
            start_s = time.perf_counter()
            whole(frame)
            between_s = time.perf_counter()
            part.reduced(frame)
            times_ms[row] = 1e3 * (between_s - start_s), 1e3 * (time.perf_counter() - between_s)
    fastest, ratio = times_ms.min(axis=0), np.median(times_ms[:, 0] / times_ms[:, 1])
    mtd.console.print(f"{fastest[0]:.1f} ms, backbone alone {fastest[1]:.1f} ms, median ratio {ratio:.2f}, one thread")


if __name__ == "__main__":
    main()
