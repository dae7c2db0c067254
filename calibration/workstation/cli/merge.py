"""``shiftwatch-calibrate merge``: bundles of the same network become one."""

from pathlib import Path
from typing import Annotated

import typer

from calibration.bundle.bundle import open_bundle
from calibration.update.merge import merge as merge_bundles
from calibration.workstation.cli.options import Threads
from calibration.workstation.cli.output import describe
from calibration.workstation.cli.parse import numbers


def merge(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE", help="Two or more folders that `fit` wrote.")],
    out: Annotated[
        Path, typer.Option("--output", "--out", "-o", metavar="BUNDLE", help="Folder to write; must not exist.")
    ],
    *,
    weight: Annotated[
        str | None,
        typer.Option(
            metavar="W,W,...",
            help="Weight of the images of each bundle, above 0 and up to 1: less forgets.  [default: 1 each]",
        ),
    ] = None,
    threads: Threads = 0,
) -> None:
    """Add up what bundles of the same backbone, preprocessing and detector have learned, without their images.

    Statistics and network are exactly those of one fit to all images; the threshold is an estimate (mean_shift, padim).

    For example:

    `shiftwatch-calibrate merge line1 line2 --output both`

    `shiftwatch-calibrate merge last-year this-week --weight 0.5,1 --output washers`
    """
    opened = [open_bundle(path) for path in bundles]
    weights = [1.0] * len(opened) if weight is None else numbers("--weight", weight, "numbers, e.g. 0.5,1")
    describe(merge_bundles(opened, weights, out, threads))
