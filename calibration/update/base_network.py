"""The network that a refit gives a new head: the bundle's own, or a new one of the weight-free filterbank.

The filterbank is for a new product on a device that has neither torch nor other weights. Preprocessing, division by
brightness and detector stay the bundle's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from calibration.backbones.backbone import filterbank_backbone
from calibration.detectors.head import WhiteningHead
from calibration.errors import ModelTooLargeError, SettingError
from calibration.network.fusion import backbone_record, feature_network, fused_network, reduced_shape
from calibration.update.additive import additive_detector

if TYPE_CHECKING:
    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import BackboneRecord
    from calibration.detectors.contract import AdditiveDetector

OtherBackbone: TypeAlias = Literal["filterbank"]


class BaseNetwork(NamedTuple):
    """A network and its backbone.

    Attributes:
        network: As a bundle's ``network.onnx``; its head is replaced by ``fusion.replace_head``.
        backbone: Record for the manifest.
    """

    network: bytes
    backbone: BackboneRecord


def base_network_of(bundle: Bundle, other: OtherBackbone | None) -> BaseNetwork:
    """The bundle's own network, or a new one if another backbone is asked for.

    Raises:
        SettingError: The backbone does not accept this network input, or the detector not its features.
    """
    if _is_own(bundle, other):
        return BaseNetwork(bundle.network.read_bytes(), bundle.manifest.backbone)
    backbone, detector, (channels, *_) = _filterbank(bundle)
    empty = WhiteningHead(np.zeros((1, channels), np.float32), np.eye(channels, dtype=np.float32)[None])
    divide = bundle.manifest.preprocess.divide_brightness
    network = fused_network(backbone, detector, empty, divide_brightness=divide)
    return BaseNetwork(network.SerializeToString(), backbone_record(backbone))


def refuse_large_base_network(bundle: Bundle, other: OtherBackbone | None, parts: int, memory_limit_mib: float) -> None:
    """Raise an error if the statistics on another backbone do not fit into memory.

    Raises:
        SettingError: See ``base_network_of``.
        ModelTooLargeError: They need more than the limit.
    """
    if _is_own(bundle, other):
        return
    _, detector, reduced = _filterbank(bundle)
    channels, height, width = reduced
    needed_mib = detector.memory_mib(reduced, parts)
    if needed_mib > memory_limit_mib:
        raise ModelTooLargeError(
            what=f"{height}x{width} locations of {channels} channels need {needed_mib:,.0f} MiB for their statistics; "
            f"{memory_limit_mib:,.0f} MiB are free",
            remedy="close what else takes the memory of this device, or calibrate a bundle for it with "
            f"{detector.memory_advice}, or a smaller --size",
        )


def _is_own(bundle: Bundle, other: OtherBackbone | None) -> bool:
    own = bundle.manifest.backbone
    return other is None or (own.name == other and not own.weights_sha256)


def _filterbank(bundle: Bundle) -> tuple[Backbone, AdditiveDetector, tuple[int, int, int]]:
    """The filterbank for the bundle's network input, the bundle's detector, and the shape of its reduced features."""
    preprocess, detector = bundle.manifest.preprocess, additive_detector(bundle.manifest.detector)
    try:
        backbone = filterbank_backbone(preprocess.height, preprocess.width)
        extractor = feature_network(backbone, detector, divide_brightness=preprocess.divide_brightness)
    except SettingError as error:
        raise SettingError(
            what=f"{bundle.path.name} cannot use the filterbank: {error.what}",
            remedy="teach with the backbone of the bundle, or calibrate a bundle of another --size",
        ) from error
    return backbone, detector, reduced_shape(extractor)
