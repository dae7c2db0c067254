"""How time and memory of a fit grow with the number of images and of cells, and what its advice costs.

Processor time, so that others on the machine change it little; each fit in a fresh process. Advice is all that only
tells people something: copies, the forecast of what will be found, the images to review.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mtd
from rich import box
from rich.table import Table

from calibration.detectors.damaged_images import DamagedImages
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import ImageFiles
from calibration.workstation.fit import pipeline
from calibration.workstation.fit.backbone_choice import BackboneChoice

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = (100, 700)
SIZES = ((224, 224), (640, 256))
_ADVICE = ("alike_images", "draw_defects", "findings_of_alike", "image_findings", "review_arrays")


def main() -> None:
    """One line for each size and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("filterbank", "lite0"), default="lite0")
    name = parser.parse_args().backbone
    table = Table("network input", "images", box=box.MARKDOWN)
    for title in ("processor s", "advice s", "advice / fit", "peak MiB"):
        table.add_column(title, justify="right")
    for size in SIZES:
        for count in COUNTS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                whole_s, advice_s, peak_mib = process.submit(_fit, name, size, count).result()
            share = advice_s / whole_s
            cells = (f"{whole_s:.1f}", f"{advice_s:.1f}", f"{share:.2f}", f"{peak_mib:.0f}")
            table.add_row("x".join(map(str, size)), str(count), *cells)
    mtd.console.print(table)


def _fit(name: str, size: tuple[int, int], count: int) -> tuple[float, float, float]:
    """Processor seconds of a fit and of its advice, and the peak memory of this process in MiB."""
    spent_s: list[float] = []
    for function in _ADVICE:
        setattr(pipeline, function, _timed(getattr(pipeline, function), spent_s))
    DamagedImages.score = _timed(DamagedImages.score, spent_s)  # type: ignore[method-assign]
    lite0 = BackboneChoice("tf_efficientnet_lite0", "blocks.3,blocks.4", mtd.LITE0)
    choice = BackboneChoice() if name == "filterbank" else lite0
    settings = replace(mtd.settings_of(), preprocess=Preprocess(*size), threads=1)
    images = ImageFiles("tiles", mtd.split().learnt[:count])
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.process_time()
        pipeline.calibrate(images, choice, settings, Path(folder) / "bundle", lambda *_: None)
        whole_s = time.process_time() - start_s
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return whole_s, sum(spent_s), int(peak[1]) / 1024 if peak else float("nan")


def _timed(function: Callable[..., Any], spent_s: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it takes
        start_s = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            spent_s.append(time.process_time() - start_s)

    return timed


if __name__ == "__main__":
    main()
