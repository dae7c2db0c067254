"""The options of ``fit``, and those that other commands share with it: types and help texts."""
# No deferred annotations here: typer reads these types.

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from calibration.workstation.cli.detector_options import DETECTOR_OPTIONS
from calibration.workstation.presets import PRESETS

learning = partial(typer.Option, rich_help_panel="What to learn from")
network = partial(typer.Option, rich_help_panel="Backbone")
method = partial(typer.Option, rich_help_panel="Detector")

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `fit` wrote.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the network; 0: one for each core.")]

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of images of good parts, MVTec layout (train/good is taken), a video, or a camera: device number, "
        "URL or pipeline."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")]
Frames = Annotated[str, learning(help="START:STOP:STEP of a video or of the sorted images.")]
ImageCount = Annotated[
    int, learning("--images", metavar="N", min=1, help="With a camera: number of images to record into BUNDLE.images.")
]
Settled = Annotated[
    bool, learning("--settled", help="With a camera: record one image of each part that comes and stands still.")
]
Passing = Annotated[
    bool,
    learning("--passing", help="With a camera or a video of a belt that does not stop: one image of each part on it."),
]
Roi = Annotated[str | None, learning(metavar="X,Y,W,H", help="Region of interest, in frame pixels.")]
Crop = Annotated[
    float | None,
    learning(
        metavar="0..1",
        help="Inspect only this share of each side of the region, in its middle.  [default: 1, or the preset's]",
    ),
]
Align = Annotated[
    str | None,
    learning(
        metavar="PIXELS|auto",
        help="Move the region with the part, by up to this many frame pixels; auto: 5 % of its shorter side.",
    ),
]
Ignore = Annotated[
    list[str],
    learning(
        metavar="FILE|X,Y,W,H",
        help="Do not inspect this area: an image of the frame's size, white where ignored, or a rectangle; repeatable.",
    ),
]
LeaveOut = Annotated[
    list[str],
    learning(
        metavar="NAME|FILE",
        help="An image not to learn from, with or without its folder, or a text file of such names, one a line; "
        "repeatable.",
    ),
]
Size = Annotated[
    str,
    learning(
        metavar="auto|HxW",
        help="Network input, in pixels; auto: with the region's aspect, and as many pixels as 224x224.",
    ),
]
MaxMs = Annotated[
    float | None,
    learning(min=0.1, help="--size auto: as many pixels as the network computes in this time on this machine."),
]
DivideBrightness = Annotated[
    bool, learning("--divide-brightness", help="Divide each frame by its own mean brightness.")
]
Augment = Annotated[int, learning(help="Varied copies of each image to learn from as well.")]
Contamination = Annotated[float, learning(help="Share of the images that may be defective: lists the suspicious ones.")]
SamePart = Annotated[
    str,
    learning(
        metavar="auto|none|REGEX",
        help=r"Which images show the same part and are held out together: auto: those that look like copies of one "
        r"another; none: all show different parts; or those whose names agree in this, e.g. `part(\d+)`.",
    ),
]
Suspicious = Annotated[
    Path | None,
    learning(
        metavar="FILE",
        help="Where to write the names of all suspicious images; delete the good ones and give it to --leave-out.",
    ),
]
FalseRejectRate = Annotated[float, learning(help="Share of good parts that may be rejected.")]
ThresholdRule = Annotated[
    Literal["scores", "chi-square"],
    learning(
        help="What sets the threshold: `scores` of held-out good images, or `chi-square`, their law if features are "
        "Gaussian; real ones rarely are, and more good parts are then rejected than asked for."
    ),
]
MmPerPixel = Annotated[
    float | None, learning(metavar="MM", help="Millimetres that a frame pixel covers: sizes are then said in mm, too.")
]
LeastDetection = Annotated[
    float,
    learning(
        metavar="SHARE",
        min=0,
        max=1,
        help="Share of the largest synthetic defects below which the bundle is called nearly blind.",
    ),
]

BackboneName = Annotated[
    str | None,
    network(
        metavar="NAME|FILE.onnx|A+B",
        help="`filterbank` (no weights), a timm name, an ONNX file, or several joined by `+`.  [default: filterbank]",
    ),
]
Stages = Annotated[
    str,
    network(metavar="PATH,...", help="Stages of a timm model, e.g. `blocks.3,blocks.4`; of several, joined by `+`."),
]
Weights = Annotated[
    Path | None,
    network(metavar="FILE", help="Weights of the timm model, or of several, joined by `+`; else timm downloads them."),
]
Mean = Annotated[str, network(metavar="R,G,B", help="Subtracted from the input, 0..1, of an ONNX file.")]
Std = Annotated[str, network(metavar="R,G,B", help="Divides the input of an ONNX file after that.")]

PresetName = Annotated[
    str | None,
    method(
        metavar="|".join(PRESETS),
        help="Backbone, size, method and its options as a paper has them; --backbone and --size replace its own.",
    ),
]
DetectorText = Annotated[
    str | None,
    method(
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"Method, with options of its own, e.g. `patchcore:coreset=0.1`: {DETECTOR_OPTIONS}. `patch_svdd` trains "
        "encoders of its own.  [default: mean_shift]",
    ),
]
Alpha = Annotated[
    str | None,
    method(
        metavar="0..1",
        help="mean_shift: weight of the pooled covariance; 1: one for all locations, near 0: PaDiM.  [default: 0.3]",
    ),
]
Averaging = Annotated[int | None, method(help="mean_shift: averaged region, in grid cells.  [default: 2]")]
Location = Annotated[
    Literal["local", "shared", "global"] | None,
    method(
        help="mean_shift: `shared` where parts do not sit still; `global`: one statistic of the whole image.  "
        "[default: local]"
    ),
]
PoolingOrder = Annotated[
    float | None,
    method(
        metavar="1..inf",
        help="mean_shift: order of the generalised mean over locations that makes the score; inf: the largest.  "
        "[default: 8]",
    ),
]
Patch = Annotated[
    int | None, method(help="mean_shift: side of the patch of grid cells joined into one vector.  [default: 1]")
]
Modes = Annotated[
    int | None, method(help="mean_shift: means per location, for several kinds of good parts.  [default: 1]")
]
Dimensions = Annotated[int | None, method(help="mean_shift: random directions kept.  [default: all]")]
Auto = Annotated[
    bool,
    method(
        "--auto",
        help="Choose detector, alpha, averaging, location, brightness, and the best of the backbones and stages "
        "named, by synthetic defects.",
    ),
]
TimeBudget = Annotated[float, method(min=1.0, help="--auto: time for choosing.")]
MemoryLimit = Annotated[int, method(help="Memory that the statistics may take.")]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Read images and compute features on a Dask cluster that sees them under the same paths: "
        "`tcp://HOST:PORT`, or `local:N` for N processes here.",
    ),
]
