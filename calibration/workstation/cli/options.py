"""The options of ``fit``, and those that other commands share with it: types and help texts."""
# No deferred annotations here: typer reads these types.

from pathlib import Path
from typing import Annotated, Literal

import typer

LEARNING = "What to learn from"
NETWORK = "Backbone"
METHOD = "Detector"


BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `fit` wrote.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the network; 0: one for each core.")]

Source = Annotated[
    Path,
    typer.Argument(help="Folder of images of good parts, MVTec layout (train/good is taken), or a video."),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")]
Frames = Annotated[
    str, typer.Option(help="START:STOP:STEP of a video or of the sorted images.", rich_help_panel=LEARNING)
]
Roi = Annotated[
    str | None,
    typer.Option(metavar="X,Y,W,H", help="Region of interest, in frame pixels.", rich_help_panel=LEARNING),
]
Align = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS|auto",
        help="Move the region with the part, by up to this many frame pixels; auto: 5 % of its shorter side.",
        rich_help_panel=LEARNING,
    ),
]
Ignore = Annotated[
    list[str],
    typer.Option(
        metavar="FILE|X,Y,W,H",
        help="Do not inspect this area: an image of the frame's size, white where ignored, or a rectangle; repeatable.",
        rich_help_panel=LEARNING,
    ),
]
LeaveOut = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Names of images not to learn from, one a line.", rich_help_panel=LEARNING),
]
Size = Annotated[str, typer.Option(metavar="HxW", help="Network input, in pixels.", rich_help_panel=LEARNING)]
DivideBrightness = Annotated[
    bool,
    typer.Option("--divide-brightness", help="Divide each frame by its own mean brightness.", rich_help_panel=LEARNING),
]
Augment = Annotated[
    int, typer.Option(help="Varied copies of each image to learn from as well.", rich_help_panel=LEARNING)
]
Contamination = Annotated[
    float,
    typer.Option(
        help="Share of the images that may be defective: lists the suspicious ones.", rich_help_panel=LEARNING
    ),
]
SamePart = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"Images whose names agree in this show the same part (`part(\d+)`) and are left out together.",
        rich_help_panel=LEARNING,
    ),
]
Suspicious = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where to write the names of all suspicious images; delete the good ones and give it to --leave-out.",
        rich_help_panel=LEARNING,
    ),
]
FalseRejectRate = Annotated[
    float, typer.Option(help="Share of good parts that may be rejected.", rich_help_panel=LEARNING)
]

BackboneName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.onnx|A+B",
        help="`filterbank` (no weights), a timm name, an ONNX file, or several joined by `+`.  [default: filterbank]",
        rich_help_panel=NETWORK,
    ),
]
Stages = Annotated[
    str,
    typer.Option(metavar="PATH,...", help="Stages of a timm model, e.g. `blocks.3,blocks.4`.", rich_help_panel=NETWORK),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of the timm model; else timm downloads them.", rich_help_panel=NETWORK),
]
Mean = Annotated[
    str,
    typer.Option(metavar="R,G,B", help="Subtracted from the input, 0..1, of an ONNX file.", rich_help_panel=NETWORK),
]
Std = Annotated[
    str, typer.Option(metavar="R,G,B", help="Divides the input of an ONNX file after that.", rich_help_panel=NETWORK)
]

DetectorName = Annotated[
    Literal["mean_shift", "padim", "gaussian", "patchcore", "patch_svdd"],
    typer.Option(help="Method; `patch_svdd` trains encoders of its own.", rich_help_panel=METHOD),
]
Alpha = Annotated[
    str | None,
    typer.Option(
        metavar="0..1",
        help="mean_shift: weight of the pooled covariance; 1: Hermann et al., near 0: PaDiM.  [default: 0.03]",
        rich_help_panel=METHOD,
    ),
]
Averaging = Annotated[
    int | None,
    typer.Option(help="mean_shift: averaged region, in grid cells.  [default: 2]", rich_help_panel=METHOD),
]
Location = Annotated[
    Literal["local", "shared", "global"] | None,
    typer.Option(
        help="mean_shift: `shared` where parts do not sit still; `global`: one statistic of the whole image.  "
        "[default: local]",
        rich_help_panel=METHOD,
    ),
]
PoolingOrder = Annotated[
    float | None,
    typer.Option(
        metavar="1..inf",
        help="mean_shift: order of the generalised mean over locations that makes the score; inf: the largest.  "
        "[default: 8]",
        rich_help_panel=METHOD,
    ),
]
Patch = Annotated[
    int | None,
    typer.Option(
        help="mean_shift: side of the patch of grid cells joined into one vector.  [default: 1]", rich_help_panel=METHOD
    ),
]
Modes = Annotated[
    int | None,
    typer.Option(
        help="mean_shift: means per location, for several kinds of good parts.  [default: 1]", rich_help_panel=METHOD
    ),
]
Dimensions = Annotated[
    int | None,
    typer.Option(
        help="mean_shift: random directions kept.  [default: all]  padim: random channels kept.  [default: 100]",
        rich_help_panel=METHOD,
    ),
]
Components = Annotated[
    Literal["all", "pca", "npca"] | None,
    typer.Option(help="gaussian: components kept.  [default: all]", rich_help_panel=METHOD),
]
RetainedVariance = Annotated[
    float | None,
    typer.Option(help="gaussian: variance that pca or npca keeps.  [default: 0.99]", rich_help_panel=METHOD),
]
Coreset = Annotated[
    float | None,
    typer.Option(help="patchcore: share of patches kept in memory.  [default: 0.01]", rich_help_panel=METHOD),
]
Neighbours = Annotated[int | None, typer.Option(help="patchcore: b of eq. 7.  [default: 9]", rich_help_panel=METHOD)]
Epochs = Annotated[
    int | None, typer.Option(help="patch_svdd: epochs of training.  [default: 20]", rich_help_panel=METHOD)
]
SvddWeight = Annotated[
    float | None,
    typer.Option(help="patch_svdd: weight of the SVDD' loss.  [default: 0.001]", rich_help_panel=METHOD),
]
Auto = Annotated[
    bool,
    typer.Option(
        "--auto",
        help="Choose detector, alpha, averaging, location, brightness, and the best of the backbones and stages "
        "named, by synthetic defects.",
        rich_help_panel=METHOD,
    ),
]
TimeBudget = Annotated[float, typer.Option(min=1.0, help="--auto: time for choosing.", rich_help_panel=METHOD)]
MemoryLimit = Annotated[int, typer.Option(help="Memory that the statistics may take.", rich_help_panel=METHOD)]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Read images and compute features on a Dask cluster that sees them under the same paths: "
        "`tcp://HOST:PORT`, or `local:N` for N processes here.",
    ),
]
