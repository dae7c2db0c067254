"""``shiftwatch-calibrate fit``: options in, bundle out."""
# No deferred annotations here: typer reads them.

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from calibration.bundle.bundle import Bundle
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.errors import SettingError, install_extra
from calibration.imaging.preprocess import Preprocess, Region
from calibration.statistics.forecast import LEAST_DETECTION
from calibration.terminal import progress_bar
from calibration.workstation.cli import options as option
from calibration.workstation.cli import parse
from calibration.workstation.cli.camera_images import images_from
from calibration.workstation.cli.detector_options import parse_detector, with_mean_shift_options
from calibration.workstation.cli.image_names import names_of, write_names
from calibration.workstation.cli.output import describe, print_written
from calibration.workstation.cli.suspicious import next_free, print_advice, suspicious_names, wants_to_leave_out
from calibration.workstation.dataset import frame_range
from calibration.workstation.fit.backbone_choice import BackboneChoice
from calibration.workstation.fit.extraction import Extractor, extract_here
from calibration.workstation.fit.folds import same_part_by
from calibration.workstation.fit.pipeline import FitOptions, calibrate_folder
from calibration.workstation.presets import preset_of
from calibration.workstation.settings import USUAL_SIDE, PreprocessRequest, Settings


def fit(  # noqa: PLR0913 - one parameter for each option of the command
    source: option.Source,
    out: option.Out,
    *,
    frames: option.Frames = ":",
    images: option.ImageCount = 100,
    settled: option.Settled = False,
    passing: option.Passing = False,
    roi: option.Roi = None,
    crop: option.Crop = None,
    align: option.Align = None,
    ignore: option.Ignore = [],  # noqa: B006 - typer copies it
    leave_out: option.LeaveOut = [],  # noqa: B006 - typer copies it
    size: option.Size = parse.AUTO,
    max_ms: option.MaxMs = None,
    divide_brightness: option.DivideBrightness = False,
    augment: option.Augment = 0,
    contamination: option.Contamination = 0.0,
    same_part: option.SamePart = "auto",
    suspicious: option.Suspicious = None,
    false_reject_rate: option.FalseRejectRate = 0.01,
    threshold_rule: option.ThresholdRule = "scores",
    mm_per_pixel: option.MmPerPixel = None,
    least_detection: option.LeastDetection = LEAST_DETECTION,
    backbone: option.BackboneName = None,
    stages: option.Stages = "",
    weights: option.Weights = None,
    mean: option.Mean = "0,0,0",
    std: option.Std = "1,1,1",
    preset: option.PresetName = None,
    detector: option.DetectorText = None,
    alpha: option.Alpha = None,
    averaging: option.Averaging = None,
    location: option.Location = None,
    pooling_order: option.PoolingOrder = None,
    patch: option.Patch = None,
    modes: option.Modes = None,
    dimensions: option.Dimensions = None,
    auto: option.Auto = False,
    time_budget_s: option.TimeBudget = 300.0,
    memory_limit_mib: option.MemoryLimit = 4096,
    threads: option.Threads = 0,
    dask: option.Dask = None,
) -> None:
    """Learn from good images and write a bundle.

    For example:

    `shiftwatch-calibrate fit photos/good --out washers`

    `shiftwatch-calibrate fit line3.mp4 --frames 0:400 --roi 320,80,512,512 --out washers`

    `shiftwatch-calibrate fit rtsp://camera3/stream --images 200 --settled --out washers`

    `shiftwatch-calibrate fit belt.mp4 --passing --out washers`

    `shiftwatch-calibrate fit photos/good --backbone tf_efficientnet_lite0 --stages blocks.3,blocks.4 --out washers`

    `shiftwatch-calibrate fit photos/good --auto --out washers`

    `shiftwatch-calibrate fit photos/good --detector patchcore:coreset=0.1 --out washers`

    `shiftwatch-calibrate fit photos/good --roi 320,80,512,512 --align auto --ignore label.png --out washers`
    """
    of_mean_shift = {
        "alpha": alpha,
        "averaging": averaging,
        "location": location,
        "pooling_order": pooling_order,
        "patch": patch,
        "modes": modes,
        "dimensions": dimensions,
    }
    paper = None if preset is None else preset_of(preset)
    method = parse_detector(
        detector or (paper.detector.name if paper else MeanShift.name), paper.detector if paper else None
    )
    method = with_mean_shift_options(method, of_mean_shift)
    if isinstance(method, PatchSvdd):
        given = {
            "backbone": backbone,
            "stages": stages,
            "weights": weights,
            "auto": auto,
            "dask": dask,
            "max_ms": max_ms,
        }
        _refuse(given, "--detector patch_svdd trains encoders of its own, to which {} does not apply")
    elif auto:
        given = {**of_mean_shift, "divide_brightness": divide_brightness, "detector": detector, "preset": preset}
        _refuse(given, "--auto chooses what {} would say")
    if paper and backbone is None:
        backbone, stages = paper.backbone, stages or paper.stages
    if size != parse.AUTO or paper:
        _refuse({"max_ms": max_ms}, f"{'--preset' if size == parse.AUTO else '--size'} says what {{}} would choose")
    if crop is None:
        crop = paper.crop if paper else 1.0
    usual_size = paper.size if paper else (USUAL_SIDE, USUAL_SIDE)
    chosen_size = usual_size if size == parse.AUTO else parse.size(size)
    colours = parse.colours("--mean", mean), parse.colours("--std", std)
    options = FitOptions(
        images_from(source, out, images, roi, _how_recorded(settled=settled, passing=passing)),
        out,
        Settings(
            preprocess=Preprocess(*chosen_size, None if roi is None else Region.from_text(roi), crop=crop),
            detector=method,
            learn=PreprocessRequest(
                None if align is None else parse.displacement(align),
                list(map(parse.ignored_area, ignore)),
                choose_size=size == parse.AUTO and paper is None,
                max_ms=max_ms,
            ),
            divide_brightness=divide_brightness,
            augment=augment,
            contamination=contamination,
            part_of=same_part_by(same_part),
            tuning_s=time_budget_s if auto else None,
            false_reject_rate=false_reject_rate,
            threshold_rule=threshold_rule,
            mm_per_pixel=mm_per_pixel,
            memory_limit_mib=memory_limit_mib,
            threads=threads,
        ),
        BackboneChoice(backbone or "filterbank", stages, weights, *colours),
        frame_range(frames),
        frozenset().union(*map(names_of, leave_out)),
    )
    with _extractor(dask) as extract:
        bundle = _calibrated(options, extract, least_detection)
        while strays := wants_to_leave_out(bundle):
            options = replace(options, out=next_free(out), left_out={*options.left_out, *strays})
            bundle = _calibrated(options, extract, least_detection)
    print_advice(bundle)
    if suspicious:
        write_names(suspicious, suspicious_names(bundle))
        print_written("suspicious images, the highest score first", [suspicious])


def _calibrated(options: FitOptions, extract: Extractor, least_detection: float) -> Bundle:
    with progress_bar() as progress:
        bundle = calibrate_folder(options, progress, extract)
    describe(bundle, least_detection)
    return bundle


def _how_recorded(*, settled: bool, passing: bool) -> str:
    if settled and passing:
        raise SettingError(what="both --settled and --passing are given", remedy="give one of them")
    return "--settled" if settled else "--passing" if passing else "--all"


def _refuse(given: Mapping[str, object], reason: str) -> None:
    """Raise SettingError if one of these options was given."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise SettingError(what=reason.format(", ".join(named)), remedy="leave out the one or the other")


@contextmanager
def _extractor(dask: str | None) -> Iterator[Extractor]:
    """Where features are computed: here, or on the Dask cluster of this address.

    Raises:
        SettingError: Dask is not installed, or the address makes no sense.
        ClusterError: No scheduler answers there.
    """
    if dask is None:
        yield extract_here
        return
    try:
        from calibration.workstation.fit.dask_client import Cluster, connected  # noqa: PLC0415 - an extra
        from calibration.workstation.fit.dask_extraction import ClusterExtractor  # noqa: PLC0415
    except ImportError as error:
        raise SettingError(
            what=f"--dask needs Dask ({error})",
            remedy=f"install it: {install_extra('dask')}; or leave out --dask",
        ) from error
    with connected(dask) as client:
        yield ClusterExtractor(Cluster(client))
