"""The public Python API: calibrate on a folder of good images, and inspect images with the bundle.

All errors are ``calibration.ShiftwatchError``, which says what is wrong (``what``) and what to do (``remedy``).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.bundle.bundle import check_golden
from calibration.bundle.bundle import open_bundle as open_folder
from calibration.deployment.backends import AUTO, BACKENDS, Deployment, choose_backend, open_engine
from calibration.deployment.engine_source import engine_folder, fastest_file
from calibration.errors import SettingError, ShiftwatchError
from calibration.imaging.heatmap import overlay
from calibration.imaging.image_files import read_image
from calibration.imaging.preprocess import Preprocess, Region, as_bgr8, prepare_image
from calibration.imaging.score_map import cover_region, map_threshold
from calibration.progress import silent
from calibration.statistics.forecast import LEAST_DETECTION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress

log = logging.getLogger(__name__)

__all__ = ["Inspection", "Inspector", "ShiftwatchError", "calibrate", "inspector", "open_bundle"]


@dataclass(frozen=True)
class Inspection:
    """The result for one image.

    Attributes:
        image: What was inspected, (rows, columns, 3), uint8, BGR.
        score: Squared distance from the good parts; the threshold applies to it.
        threshold: Largest score of a part that passes.
        score_map: Score at every location of ``region``, which it covers from edge to edge, (h, w), float32.
        region: Inspected rectangle of the image, in pixels; with alignment, moved with the part.
    """

    image: Image
    score: float
    threshold: float
    score_map: NDArray[np.float32]
    region: Region

    @property
    def is_defect(self) -> bool:
        """Whether the part is rejected: its score is above the threshold."""
        return not self.score <= self.threshold  # so that a NaN is rejected

    @cached_property
    def heatmap(self) -> Image:
        """The image with heat where scores come near the threshold, outlined where they are above it; BGR."""
        threshold = map_threshold(self.score_map, self.score, self.threshold)
        return overlay(self.image, self.region, self.score_map, threshold)


@dataclass(frozen=True)
class Inspector:
    """Scores images, one at a time, from one thread. Made by ``inspector``.

    Attributes:
        bundle: What calibration wrote.
        engine: Runs its network.
        reason: Why this engine was chosen.
    """

    bundle: Bundle
    engine: Engine
    reason: str

    def __call__(self, image: str | Path | NDArray[np.uint8]) -> Inspection:
        """Inspect one image.

        Args:
            image: A file, or a frame: (rows, columns, 3), uint8, BGR, as OpenCV gives it; (rows, columns) if grey.

        Raises:
            DatasetError: It cannot be read, or the region of interest does not fit into it.
        """
        if isinstance(image, str | Path):
            name, frame = str(image), read_image(Path(image))
        else:
            name, frame = "the frame", as_bgr8(image)
        prepared, location = prepare_image(self.bundle.preprocess, name, frame)
        inference = self.engine(prepared)
        manifest = self.bundle.manifest
        score_map = cover_region(inference.map, manifest.backbone.grid)
        return Inspection(frame, inference.score, manifest.working_point.threshold, score_map, location.region)


def open_bundle(path: str | Path) -> Bundle:
    """Open the folder that calibration wrote, and check all its files.

    Raises:
        BundleError: Missing, incomplete, changed, or written by newer software.
    """
    return open_folder(Path(path))


@contextmanager
def inspector(
    bundle: str | Path | Bundle, *, backend: str = AUTO, threads: int = 0, progress: Progress = silent
) -> Iterator[Inspector]:
    """Load a bundle's network, check it with the golden frames, and inspect images in the ``with`` block.

    Args:
        bundle: An open bundle, or its folder.
        backend: ``tensorrt``, ``tensorrt_rtx``, ``cuda``, ``openvino``, ``onnxruntime`` (the CPU), or ``auto``: the
            best that this machine has. TensorRT builds its engine at the first use, which takes minutes, and keeps it
            next to the bundle; TensorRT for RTX takes seconds. Where OpenVINO is installed, the first use also measures
            in a few seconds whether it or ONNX Runtime is faster, and keeps the result.
        threads: CPU threads; 0 takes one for each core.
        progress: Receives the progress of building a TensorRT engine.

    Raises:
        BundleError: As of ``open_bundle``.
        SettingError: The backend is not known.
        EngineError: The backend cannot run here.
        ScoreMismatchError: The golden frames score differently from calibration.
    """
    if backend not in {AUTO, *BACKENDS}:
        raise SettingError(what=f"backend {backend!r} is not known", remedy=f"give {', '.join([AUTO, *BACKENDS])}")
    opened = open_bundle(bundle) if isinstance(bundle, str | Path) else bundle
    folder, fastest = partial(engine_folder, opened), fastest_file(opened)
    deployment = Deployment(opened, threads, folder, progress, fastest_file=fastest)
    with open_engine(choose_backend(backend), deployment, lambda engine: check_golden(opened, engine)) as best:
        yield Inspector(opened, best.engine, best.reason)


def calibrate(  # noqa: PLR0913 - what most calibrations set; `shiftwatch-calibrate fit` has more
    source: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    region: tuple[int, int, int, int] | None = None,
    backbone: str = "filterbank",
    stages: str = "",
    weights: Path | None = None,
    detector: str = "mean_shift",
    false_reject_rate: float = 0.01,
    leave_out: Collection[str] = (),
    same_part: str = "auto",
    threads: int = 0,
    progress: Progress = silent,
) -> Bundle:
    """Learn what good parts look like and write a bundle, as ``shiftwatch-calibrate fit`` does.

    What a person should know about the images (copies, masks, several sizes and others) is logged as warnings, and is
    in ``manifest.images.findings`` of the bundle.

    Args:
        source: Folder of images of good parts (10 at least, a hundred or more are better), or a video.
        out: Folder of the bundle; must not exist.
        size: Height and width of the network input, in pixels; None: with the region's aspect, and as many pixels as
            224x224.
        region: Region of interest, (x, y, width, height) in frame pixels; None takes the whole frame.
        backbone: ``filterbank`` (no weights), a timm model, an ONNX file, or several joined by ``+``.
        stages: Stages of the timm model, joined by commas, e.g. ``blocks.3,blocks.4``.
        weights: Weights of the timm model; None lets timm download them.
        detector: Method with its options, e.g. ``padim`` or ``mean_shift:alpha=1``.
        false_reject_rate: Share of good parts that may be rejected; sets the threshold.
        leave_out: Names of images not to learn from.
        same_part: Which images show the same part: ``auto`` finds near copies, ``none`` takes all for different parts,
            or a regular expression that finds the part in a name.
        threads: CPU threads; 0 takes one for each core.
        progress: Receives (step, done, total).

    Raises:
        ShiftwatchError: Those of ``calibration.workstation.fit.pipeline.calibrate``.
    """
    from calibration.workstation.cli.detector_options import parse_detector  # noqa: PLC0415 - not on a device
    from calibration.workstation.fit.backbone_choice import BackboneChoice  # noqa: PLC0415
    from calibration.workstation.fit.folds import same_part_by  # noqa: PLC0415
    from calibration.workstation.fit.pipeline import FitOptions, calibrate_folder  # noqa: PLC0415
    from calibration.workstation.report.forecast_words import blind_warning  # noqa: PLC0415
    from calibration.workstation.settings import USUAL_SIDE, PreprocessRequest, Settings  # noqa: PLC0415

    settings = Settings(
        Preprocess(*(size or (USUAL_SIDE, USUAL_SIDE)), region if region is None else Region(*region)),
        parse_detector(detector),
        PreprocessRequest(choose_size=size is None),
        part_of=same_part_by(same_part),
        false_reject_rate=false_reject_rate,
        threads=threads,
    )
    choice = BackboneChoice(backbone, stages, weights)
    bundle = calibrate_folder(FitOptions(Path(source), Path(out), settings, choice, left_out=leave_out), progress)
    forecast, record = bundle.forecast, bundle.manifest.forecast
    if forecast is not None and record is not None and (warning := blind_warning(forecast, record, LEAST_DETECTION)):
        log.warning("perhaps nearly blind: %s", warning)
    for finding in bundle.manifest.images.findings:
        log.warning("%d %s", len(finding.images), finding.on_one_line)
    return bundle
