"""Acceptance run on a new device: do NVIDIA's libraries give the scores of ONNX Runtime, and how fast?

    python tests/on_device.py BUNDLE [--library tensorrt|tensorrt_rtx] [--out on_device.json] [--folder ENGINES]

For TensorRT and TensorRT for RTX, whichever are installed: builds the engine in an empty folder, compares golden frames
and 200 random ones with ONNX Runtime, makes the engines of two recalibrated heads one after the other, loads the kept
one with each CUDA binding that is installed, and measures times and memory. The results go into one
JSON file and one page, ``on_device.html``, to be sent back. Both are written after each step, so that they show where a
library crashed. See ON_DEVICE.md. Exit code 0: passed. 1: a check failed. 2: it cannot run here, for a reason given in
one line.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # else tests/calibration hides the package

import numpy as np

from calibration.bundle.bundle import Bundle, open_bundle
from calibration.deployment.backends import BACKENDS
from calibration.deployment.engine_source import source_of
from calibration.engine.cuda_choice import BINDINGS, chosen_binding
from calibration.engine.tensorrt import TensorRTEngine
from calibration.engine.tensorrt_cache import KERNELS, PLAN, EngineFolder
from calibration.engine.tensorrt_kept import Source
from calibration.engine.tensorrt_library import LIBRARIES
from calibration.errors import EngineError, ShiftwatchError
from calibration.terminal import error_console, progress_bar
from tests.support.acceptance import Reference, changed_head, frames_to_compare, lowest_free_memory
from tests.support.acceptance_page import page_of
from tests.support.this_machine import machine, packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calibration.engine.contract import Engine
    from calibration.engine.cuda import Cuda
    from calibration.engine.cuda_choice import Binding
    from calibration.engine.tensorrt_library import Library

TIMED_RUNS = 500
SAME = 1e-6  # relative; the same engine on the same GPU
EXIT_FAILED, EXIT_CANNOT = 1, 2


class LogLines(logging.Handler):
    """Appends what is logged to a list: why an engine was built, and what NVIDIA's libraries say."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        self._lines.append(f"{record.levelname}: {record.getMessage()}")


class Acceptance:
    """One run; ``result`` holds what it found so far.

    Args:
        bundle: The bundle.
        tolerance: Largest relative difference of a score.
        save: Called with the result after each step.
    """

    def __init__(self, bundle: Bundle, tolerance: float, save: Callable[[dict[str, Any]], object]) -> None:
        self.bundle = bundle
        self._source = source_of(bundle)
        self._save = save
        self._frames = frames_to_compare(bundle)
        self.result: dict[str, Any] = {
            "schema_version": 2,
            "bundle": bundle.identity,
            "backbone": bundle.manifest.backbone.name,
            "machine": machine(),
            "packages": packages(),
            "tolerance": tolerance,
            "libraries": {},
            "checks": [],
            "log": [],
        }
        self._tolerance = tolerance
        self._networks, self._references = [self._source.read()], [self._reference(bundle.network.read_bytes())]
        for seed in (1, 2):  # the reference has the same random changes
            self._networks.append(changed_head(self._networks[0], seed))
            self._references.append(self._reference(changed_head(bundle.network.read_bytes(), seed)))
        p50, p99 = np.percentile(self._references[0].times_ms, [50, 99])
        self.result["onnxruntime_cpu"] = {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}

    def run(self, library: Library, folder: Path) -> None:
        """Everything with one library; an error ends it, and is a failed check."""
        found: dict[str, Any] = {"name": library.name, "version": library.imported().__version__}
        self.result["libraries"][library.backend] = found
        with self._step(library, "end without an error"):
            self._measure(library, folder, found)

    def skip(self, library: Library, error: EngineError) -> None:
        """Note why a library is not tried."""
        self.result["libraries"][library.backend] = {"name": library.name, "not_run": error.one_line}
        self._save(self.result)

    def _measure(self, library: Library, folder: Path, found: dict[str, Any]) -> None:
        cuda = chosen_binding().open
        kept = [folder / name for name in ("0", "1", "2")]  # the bundle, and two recalibrated heads
        with ExitStack() as stack:
            start_s = time.perf_counter()
            with progress_bar() as progress, lowest_free_memory(cuda) as found["build_memory"]:
                engine = stack.enter_context(
                    TensorRTEngine(self._source, kept[0], progress=progress, library=library, cuda=cuda)
                )
            found["build_s"] = round(time.perf_counter() - start_s, 2)
            compiled_ms = EngineFolder(kept[0]).record().compiled_ms
            found["compiled_s"] = None if compiled_ms is None else round(compiled_ms / 1000, 2)
            found["activation_bytes"] = engine.activation_bytes
            found["plan_bytes"] = (kept[0] / PLAN).stat().st_size
            self._compare(library, "score as ONNX Runtime", found, engine, self._references[0])
        for number in (1, 2):
            self._swap_head(library, kept, number, cuda, found)
        found["bindings"] = {}
        for binding in BINDINGS:
            if binding.installed:
                self._load_again(library, kept[2], binding, found["bindings"])
        found["kernels_bytes"] = (kept[2] / KERNELS).stat().st_size if (kept[2] / KERNELS).exists() else None
        if library.builds_ahead:
            self._check(library, "keep what was compiled", passed=bool(found["kernels_bytes"]))
        found["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _swap_head(
        self, library: Library, kept: Sequence[Path], number: int, cuda: Callable[[], Cuda], found: dict[str, Any]
    ) -> None:
        """Make the engine of a recalibrated bundle, as a station does."""
        start_s = time.perf_counter()
        source, before = Source.of(self._networks[number]), kept[number - 1]
        with TensorRTEngine(source, kept[number], predecessor=before, library=library, cuda=cuda) as engine:
            new = found[f"head_{number}"] = {
                "s": round(time.perf_counter() - start_s, 2),
                "by": "new weights" if engine.has_new_head else "a build",
            }
            self._compare(library, f"score as ONNX Runtime with head {number}", new, engine, self._references[number])
            if number == 1 and not library.builds_ahead:
                self._check(library, "take a new head without a build", passed=engine.has_new_head, found=new["by"])
            engine.keep_proven()

    def _load_again(self, library: Library, folder: Path, binding: Binding, bindings: dict[str, Any]) -> None:
        """Load the kept engine with one of the CUDA bindings, and time single frames."""
        name = binding.package
        start_s = time.perf_counter()
        source = Source.of(self._networks[2])
        with TensorRTEngine(source, folder, may_build=False, library=library, cuda=binding.open) as engine:
            mine: dict[str, Any] = {"load_s": round(time.perf_counter() - start_s, 2)}
            self._compare(library, f"score as ONNX Runtime when loaded with {name}", mine, engine, self._references[2])
            for kind in ("copied", "mapped") if self.result["machine"]["gpu"]["integrated"] else ("copied",):
                times_ms = engine.measured_ms(mapped=kind == "mapped", runs=TIMED_RUNS)
                p50, p99 = np.percentile(times_ms, [50, 99])
                mine[kind] = {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
        for other, their in bindings.items():
            apart = max(abs(a - b) / max(abs(b), SAME) for a, b in zip(mine["scores"], their["scores"], strict=True))
            self._check(
                library, f"score the same with {name} and {other}", passed=apart <= SAME, found=f"{100 * apart:.1g} %"
            )
        bindings[name] = mine

    def _reference(self, network: bytes) -> Reference:
        return Reference.of(network, self._frames)

    def _compare(
        self, library: Library, check: str, found: dict[str, Any], engine: Engine, reference: Reference
    ) -> None:
        """Largest relative differences of score and map; scores below 1 % of the threshold count as 1 % of it."""
        least = 0.01 * self.bundle.manifest.working_point.threshold
        worst = {"score": 0.0, "map": 0.0}
        scores = []
        for frame, theirs in zip(self._frames, reference.results, strict=True):
            mine, scale = engine(frame), max(abs(theirs.score), least)
            scores.append(mine.score)
            worst["score"] = _worse(worst["score"], abs(mine.score - theirs.score) / scale)
            worst["map"] = _worse(
                worst["map"], float(np.abs(mine.map - theirs.map).max()) / max(theirs.map.max(), scale)
            )
        found["differences"] = worst
        found["scores"] = scores[: len(self.bundle.golden().frames)]
        self._check(library, check, passed=worst["score"] <= self._tolerance, found=f"{100 * worst['score']:.2g} %")

    @contextmanager
    def _step(self, library: Library, check: str) -> Iterator[None]:
        """A check that fails if the process dies or an error is raised."""
        at = len(self.result["checks"])
        self._check(library, check, passed=False, found="the process died here")
        try:
            yield
        except ShiftwatchError as error:
            self.result["checks"][at]["found"] = error.one_line
        else:
            self.result["checks"][at].update(passed=True, found="")
        self._save(self.result)

    def _check(self, library: Library, check: str, *, passed: bool, found: str = "") -> None:
        entry = {"library": library.name, "check": check, "passed": passed, "found": found}
        self.result["checks"].append(entry)
        self._save(self.result)


def _worse(known: float, found: float) -> float:
    """The larger one; NaN is worst of all."""
    return max(known, float(found)) if np.isfinite(found) else float("inf")


def main() -> int:
    """Run, write the files, and print the result in one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--library", choices=[each.backend for each in LIBRARIES], help="default: all installed ones")
    parser.add_argument("--out", type=Path, default=Path("on_device.json"))
    parser.add_argument("--tolerance", type=float, help="of scores, relative; default: that of half precision")
    parser.add_argument("--folder", type=Path, help="for engines, empty; default: a temporary one")
    given = parser.parse_args()
    page = given.out.with_suffix(".html")

    def save(result: dict[str, Any]) -> None:
        given.out.write_text(json.dumps(result, indent=2) + "\n")
        page.write_text(page_of(result), encoding="utf-8")

    obstacles = {library: _obstacle(library) for library in LIBRARIES if given.library in {None, library.backend}}
    try:
        _refuse_if_none(list(obstacles.values()))
        with tempfile.TemporaryDirectory() as temporary:
            acceptance = Acceptance(open_bundle(given.bundle), given.tolerance or TensorRTEngine.tolerance, save)
            with _logged_into(acceptance.result["log"]):
                for library, obstacle in obstacles.items():
                    if obstacle is not None:
                        acceptance.skip(library, obstacle)
                    else:
                        acceptance.run(library, (given.folder or Path(temporary)) / library.backend)
    except ShiftwatchError as error:
        error_console.print(f"cannot run here: {error.one_line}", markup=False, soft_wrap=True)
        return EXIT_CANNOT
    failed = [each for each in acceptance.result["checks"] if not each["passed"]]
    said = "; ".join(f"{each['library']} does not {each['check']}: {each['found']}" for each in failed)
    print(said or "all checks passed", f"({given.out}, {page})")  # noqa: T201 - a program, not the library
    return EXIT_FAILED if failed else 0


@contextmanager
def _logged_into(lines: list[str]) -> Iterator[None]:
    log, handler = logging.getLogger("calibration"), LogLines(lines)
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def _refuse_if_none(obstacles: Sequence[EngineError | None]) -> None:
    errors = [error for error in obstacles if error is not None]
    if len(errors) == len(obstacles):
        whats, remedies = ("; ".join(dict.fromkeys(getattr(e, name) for e in errors)) for name in ("what", "remedy"))
        raise EngineError(what=whats, remedy=remedies)


def _obstacle(library: Library) -> EngineError | None:
    try:
        BACKENDS[library.backend].require()
    except EngineError as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
