"""What a bundle learns on with: its own network, or one of the weight-free backbone that knows nothing yet.

The second is for a product that has nothing to do with what the bundle knows, on a device that has neither torch nor
weights. All else stays the bundle's: preprocessing, division by brightness, detector.
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
    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import BackboneRecord

OtherBackbone: TypeAlias = Literal["filterbank"]


class BaseNetwork(NamedTuple):
    """What the new head is for.

    Attributes:
        network: As a bundle's ``network.onnx``; its head is there to be exchanged by ``fusion.replace_head``.
        backbone: For the manifest.
    """

    network: bytes
    backbone: BackboneRecord


def base_network_of(bundle: Bundle, other: OtherBackbone | None) -> BaseNetwork:
    """The bundle's own, or where another backbone is asked for than it has, a blank network of that one.

    Raises:
        SettingError: The backbone does not take this network input, or the detector not its features.
    """
    if _is_own(bundle, other):
        return BaseNetwork(bundle.network.read_bytes(), bundle.manifest.backbone)
    return _Blank(bundle).basis


def refuse_large_base_network(bundle: Bundle, other: OtherBackbone | None, parts: int, memory_limit_mib: float) -> None:
    """Refuse a backbone whose statistics of so many parts do not fit; the bundle's own has fitted before.

    Raises:
        SettingError: See ``basis_of``.
        ModelTooLargeError: They need more than the limit.
    """
    if _is_own(bundle, other):
        return
    blank = _Blank(bundle)
    channels, height, width = blank.reduced
    needed_mib = blank.detector.memory_mib(blank.reduced, parts)
    if needed_mib > memory_limit_mib:
        raise ModelTooLargeError(
            what=f"{height}x{width} locations of {channels} channels need {needed_mib:,.0f} MiB for their statistics; "
            f"{memory_limit_mib:,.0f} MiB are free",
            remedy="close what else takes the memory of this device, or calibrate a bundle for it with "
            f"{blank.detector.memory_advice}, or a smaller --size",
        )


def _is_own(bundle: Bundle, other: OtherBackbone | None) -> bool:
    own = bundle.manifest.backbone
    return other is None or (own.name == other and not own.weights_sha256)


class _Blank:
    """What the bundle would be on the filterbank before it has seen an image."""

    def __init__(self, bundle: Bundle) -> None:
        preprocess = bundle.manifest.preprocess
        self.detector = additive_detector(bundle.manifest.detector)
        self._divide = preprocess.divide_brightness
        try:
            self._backbone = filterbank_backbone(preprocess.height, preprocess.width)
            extractor = feature_network(self._backbone, self.detector, divide_brightness=self._divide)
        except SettingError as error:
            raise SettingError(
                what=f"{bundle.path.name} cannot learn on with the filterbank: {error.what}",
                remedy="teach it with the backbone that it has, or calibrate a bundle of another --size for this place",
            ) from error
        self.reduced = reduced_shape(extractor)

    @property
    def basis(self) -> BaseNetwork:
        channels = self.reduced[0]
        nothing = WhiteningHead(np.zeros((1, channels), np.float32), np.eye(channels, dtype=np.float32)[None])
        network = fused_network(self._backbone, self.detector, nothing, divide_brightness=self._divide)
        return BaseNetwork(network.SerializeToString(), backbone_record(self._backbone))
