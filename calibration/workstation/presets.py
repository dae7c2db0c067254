"""The configurations of the papers, each by one name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.detectors.gaussian import Gaussian
from calibration.detectors.hotelling import Hotelling
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibration.detectors.contract import Detector


@dataclass(frozen=True)
class Preset:
    """What a paper reports its figures for.

    Attributes:
        paper: Authors, year and title.
        detector: The method with its parameters.
        backbone: As ``--backbone`` takes it.
        stages: As ``--stages`` takes them; the first sets the grid.
        size: Network input, (height, width) in pixels.
        crop: Share of each side of the image that is inspected, in its middle.
    """

    paper: str
    detector: Detector
    backbone: str
    stages: str
    size: tuple[int, int] = (224, 224)
    crop: float = 1.0


PRESETS: Mapping[str, Preset] = {
    "hermann2022": Preset(
        "Hermann et al. 2022, Fast and Efficient Image Novelty Detection Based on Mean-Shifts",
        Hotelling(patch_px=64, region_px=80),
        "efficientnet_b4",
        "blocks.3,blocks.4",  # the paper's blocks 5 and 6
        crop=224 / 256,
    ),
    "patchcore2022": Preset(
        "Roth et al. 2022, Towards Total Recall in Industrial Anomaly Detection",
        PatchCore(coreset=0.01, neighbours=9, aggregation=3, dimensions=1024, smoothing=4),
        "wide_resnet50_2.tv_in1k",  # the weights of torchvision, as the authors
        "layer2,layer3",
        crop=224 / 256,
    ),
    "rippel2021": Preset(
        "Rippel et al. 2021, Modeling the Distribution of Normal Data in Pre-Trained Deep Features",
        Gaussian(),
        "tf_efficientnet_b4.aa_in1k",  # the weights that the authors' efficientnet_pytorch has, with its padding
        "bn2,blocks.6,blocks.5,blocks.4,blocks.3,blocks.2,blocks.1,blocks.0,bn1",  # the coarsest first
        (380, 380),
    ),
    "padim2021": Preset(
        "Defard et al. 2021, PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
        Padim(dimensions=100, smoothing=4),
        "resnet18.tv_in1k",  # the weights of torchvision, as in the usual code
        "layer1,layer2,layer3",
        crop=224 / 256,
    ),
    "patch_svdd2020": Preset(
        "Yi and Yoon 2020, Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation",
        # Their 300 epochs, the first of which only evaluates, are 100 * images * 299 / 64 steps: this of 391 images.
        PatchSvdd(steps=183_000, batch=64, svdd_weight=0.001, encoders="paper", entries=None),
        "filterbank",  # not used: the detector trains its own encoders
        "",
        (256, 256),
    ),
}


def preset_of(name: str) -> Preset:
    """The preset of this name.

    Raises:
        SettingError: There is none.
    """
    if name not in PRESETS:
        raise SettingError(what=f"--preset {name!r} is not known", remedy=f"give one of {', '.join(PRESETS)}")
    return PRESETS[name]
