"""Acceptance run on a new device: does TensorRT give the scores of ONNX Runtime, and how fast?

    python tests/on_device.py BUNDLE [--out on_device.json] [--tolerance 0.03] [--folder ENGINES]

Builds the bundle's engine in an empty folder, compares golden frames and 200 random ones with ONNX Runtime,
replaces the head with a changed one and compares again, loads the changed engine from disk, times mapped and copied
buffers, and writes everything to one JSON file. Exit code 0: passed. 1: a score differs. 2: it cannot run here, for a
reason given in one line.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # else tests/calibration hides the package

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.bundle.bundle import Bundle, open_bundle
from calibration.deployment.engine_source import source_of
from calibration.engine.cuda import PyCuda
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt import TensorRTEngine
from calibration.engine.tensorrt_build import BuildOptions
from calibration.engine.tensorrt_head import HEAD
from calibration.engine.tensorrt_kept import Source
from calibration.errors import ScoreMismatchError, ShiftwatchError
from calibration.terminal import error_console, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calibration.engine.contract import Engine
    from calibration.engine.cuda_driver import Gpu
    from calibration.imaging.preprocess import Image

RANDOM_FRAMES = 200
TIMED_RUNS = 500
EXIT_DIFFERENT, EXIT_CANNOT = 1, 2


def frames_to_compare(bundle: Bundle) -> list[Image]:
    """The golden frames, and random ones: half of them noise, half golden frames with noise on them."""
    random = np.random.default_rng(0)
    golden = list(bundle.golden().frames)
    noise = random.integers(0, 256, (RANDOM_FRAMES, *golden[0].shape), np.uint8)
    disturbed = [np.where(frame > 224, frame, golden[n % len(golden)]) for n, frame in enumerate(noise[::2])]
    return [*golden, *noise[1::2], *disturbed]


def compare(engine: Engine, reference: Engine, frames: Sequence[Image], threshold: float) -> dict[str, float]:
    """Largest relative differences of score and map; scores below 1 % of the threshold count as 1 % of it."""
    worst = {"score": 0.0, "map": 0.0}
    for frame in frames:
        mine, theirs = engine(frame), reference(frame)
        scale = max(abs(theirs.score), 0.01 * threshold)
        worst["score"] = _worse(worst["score"], abs(mine.score - theirs.score) / scale)
        worst["map"] = _worse(worst["map"], float(np.abs(mine.map - theirs.map).max()) / max(theirs.map.max(), scale))
    return worst


def _worse(known: float, found: float) -> float:
    """The larger one; NaN is worst of all."""
    return max(known, float(found)) if np.isfinite(found) else float("inf")


def changed_head(network: bytes) -> bytes:
    """The network with every weight of its head changed a little at random."""
    model = onnx.load_from_string(network)
    random = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(HEAD):
            weights = numpy_helper.to_array(tensor)
            moved = weights * random.uniform(0.9, 1.1, weights.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return model.SerializeToString()


def times(engine: TensorRTEngine, *, mapped: bool) -> dict[str, float]:
    """Percentiles of the time of one frame."""
    p50, p99 = np.percentile(engine.measured_ms(mapped=mapped, runs=TIMED_RUNS), [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


@contextmanager
def lowest_free_memory() -> Iterator[dict[str, int]]:
    """Watch the GPU's memory in another thread, which has its own context."""
    found = {"free_before_bytes": 0, "free_lowest_bytes": 0}
    done, begun = threading.Event(), threading.Event()

    def watch() -> None:
        with PyCuda() as cuda:
            found["free_before_bytes"] = found["free_lowest_bytes"] = cuda.free_bytes()
            begun.set()
            while not done.wait(0.05):
                found["free_lowest_bytes"] = min(found["free_lowest_bytes"], cuda.free_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun.wait(10)
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def accept(bundle: Bundle, gpu: Gpu, folder: Path, tolerance: float) -> dict[str, Any]:
    """Run every comparison and measurement."""
    source = source_of(bundle)
    threshold = bundle.manifest.working_point.threshold
    frames = frames_to_compare(bundle)
    result: dict[str, Any] = {
        "bundle": bundle.identity,
        "backbone": bundle.manifest.backbone.name,
        "machine": platform.platform(),
        "gpu": {"name": gpu.name, "compute_capability": gpu.compute_capability, "integrated": gpu.integrated},
        "tolerance": tolerance,
    }
    changed = changed_head(source.read())
    truth = changed_head(bundle.network.read_bytes())  # with the same random changes
    with progress_bar() as progress, OnnxRuntimeEngine(bundle.network) as reference, OnnxRuntimeEngine(truth) as other:
        start_s = time.perf_counter()
        with lowest_free_memory() as memory:
            engine = TensorRTEngine(source, folder, BuildOptions(), progress=progress).__enter__()
        result["build_s"] = round(time.perf_counter() - start_s, 1)
        result["build_memory"] = memory
        try:
            result["tensorrt"] = engine.key.tensorrt
            result["activation_bytes"] = engine.activation_bytes
            result["differences"] = compare(engine, reference, frames, threshold)
            result["copied"] = times(engine, mapped=False)
            if gpu.integrated:
                result["mapped"] = times(engine, mapped=True)
        finally:
            engine.__exit__(None, None, None)
        new, start_s = Source.of(changed), time.perf_counter()
        with TensorRTEngine(new, folder / "new", BuildOptions(), predecessor=folder) as swapped:
            result["exchange"] = {"enough": swapped.has_new_head, "s": round(time.perf_counter() - start_s, 2)}
            result["exchange"]["differences"] = compare(swapped, other, frames, threshold)
            swapped.keep_proven()
        with TensorRTEngine(new, folder / "new", BuildOptions()) as again:
            result["loaded_again"] = {
                "built": again.built_because,
                "differences": compare(again, other, frames, threshold),
            }
    result["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def verdict(result: dict[str, Any]) -> list[str]:
    """Everything that is wrong."""
    problems = [
        f"{part}: the score differs by {found['differences']['score']:.2g}"
        for part, found in (
            ("engine", result),
            ("new head", result["exchange"]),
            ("kept", result["loaded_again"]),
        )
        if not found["differences"]["score"] <= result["tolerance"]
    ]
    if not result["exchange"]["enough"]:
        problems.append("the head could not be replaced; the engine was rebuilt")
    if result["loaded_again"]["built"] is not None:
        problems.append(f"the kept engine was not used: {result['loaded_again']['built']}")
    return problems


def main() -> int:
    """Run, write the JSON, and print the result in one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=Path("on_device.json"))
    parser.add_argument("--tolerance", type=float, help="of scores, relative; default: that of half precision")
    parser.add_argument("--folder", type=Path, help="for engines, empty; default: a temporary one")
    given = parser.parse_args()
    try:
        bundle = open_bundle(given.bundle)
        with PyCuda() as cuda, tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary)
            result = accept(bundle, cuda.gpu, folder, given.tolerance or TensorRTEngine.tolerance)
    except ScoreMismatchError as error:
        error_console.print(f"differs: {error.what}", markup=False, soft_wrap=True)
        return EXIT_DIFFERENT
    except ShiftwatchError as error:
        error_console.print(f"cannot run here: {error.what}; {error.remedy}", markup=False, soft_wrap=True)
        return EXIT_CANNOT
    problems = verdict(result)
    given.out.write_text(json.dumps({**result, "problems": problems}, indent=2) + "\n")
    print("; ".join(problems) or "all checks passed", f"({given.out})")  # noqa: T201 - a program, not the library
    return EXIT_DIFFERENT if problems else 0


if __name__ == "__main__":
    sys.exit(main())
