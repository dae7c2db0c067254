"""Checks before bundles are merged; every difference is listed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.network.fusion import without_head
from calibration.statistics.threshold import CHI_SQUARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import Manifest

_TOLERANCE = 1e-3


def refuse_invalid_inputs(bundles: Sequence[Bundle], weights: Sequence[float]) -> None:
    """Raise SettingError unless there are two bundles or more, each with a weight, and no image counts twice."""
    if len(bundles) < 2:  # noqa: PLR2004
        raise SettingError(what=f"{len(bundles)} bundle has nothing to be merged with", remedy="give two or more")
    if len(weights) != len(bundles):
        raise SettingError(
            what=f"{len(weights)} weights for {len(bundles)} bundles", remedy="give one for each, e.g. --weight 0.5,1"
        )
    for weight in weights:
        if not 0.0 < weight <= 1.0:
            raise SettingError(
                what=f"an image cannot count {weight:g} times",
                remedy="give weights above 0 and up to 1, the full weight",
            )
    names: dict[str, Path] = {}
    for bundle in bundles:
        merge = bundle.manifest.merge
        for identity in (bundle.identity, *(parent.identity for parent in (merge.parents if merge else ()))):
            if identity in names:
                raise SettingError(
                    what=f"{names[identity]} and {bundle.path} hold the same images, which would count twice",
                    remedy="give each bundle once, and none that was merged already",
                )
            names[identity] = bundle.path


def refuse_different_settings(bundles: Sequence[Bundle]) -> None:
    """Raise SettingError with every setting in which the bundles differ."""
    first, *others = bundles
    found = [
        f"{bundle.path}: {difference}"
        for bundle in others
        for difference in _differences(first.manifest, bundle.manifest)
    ]
    if found:
        raise SettingError(
            what=f"{first.path} cannot be merged with bundles of other settings ({'; '.join(found)})",
            remedy="calibrate both with the same options and software",
        )


def _differences(one: Manifest, other: Manifest) -> Iterator[str]:
    """Settings in which two bundles differ, apart from their images; their moments can be added if there are none."""
    ours, theirs = _settings(one), _settings(other)
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            yield f"{name} is {ours.get(name)} and {theirs.get(name)}"


def _settings(manifest: Manifest) -> dict[str, object]:
    parameters = dict(manifest.detector.parameters)
    parameters.pop("alpha_from_moments", None)  # written by older software
    return {
        **{f"preprocess.{name}": value for name, value in manifest.preprocess.model_dump().items()},
        **{f"backbone.{name}": value for name, value in manifest.backbone.model_dump().items()},
        "augment": manifest.augment,
        "threshold by chi-square": manifest.working_point.method == CHI_SQUARE,
        "detector": manifest.detector.name,
        **{f"detector.{name}": value for name, value in parameters.items()},
    }


def refuse_different_features(bundles: Sequence[Bundle], threads: int) -> None:
    """Raise SettingError unless the networks give the same features of golden frames.

    This covers what manifests do not record, such as the normalisation of images.
    """
    first, *others = bundles
    ours = without_head(first.network.read_bytes())
    frames = first.golden().frames
    for bundle in others:
        theirs = without_head(bundle.network.read_bytes())
        if theirs != ours and not _equal(_features(ours, frames, threads), _features(theirs, frames, threads)):
            raise SettingError(
                what=f"the networks of {first.path} and {bundle.path} give different features",
                remedy="calibrate both with the same options, weights and software",
            )


def _features(network: bytes, frames: NDArray[np.uint8], threads: int) -> NDArray[np.float32]:
    with OnnxRuntimeEngine(network, threads) as engine:
        return np.stack([engine.reduced(frame) for frame in frames])


def _equal(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Equal up to rounding, channel by channel."""
    norms, differences = (np.sqrt(np.square(each).sum(axis=(0, 2, 3))) for each in (one, one - other))
    return bool((differences <= _TOLERANCE * norms).all())
