"""What an acceptance run compares with: frames, networks with other heads, and what ONNX Runtime makes of them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt_head import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Inference
    from calibration.engine.cuda import Cuda
    from calibration.imaging.preprocess import Image

RANDOM_FRAMES = 200


@dataclass(frozen=True)
class Reference:
    """What ONNX Runtime makes of a network.

    Attributes:
        results: One for each frame.
        times_ms: As many.
    """

    results: Sequence[Inference]
    times_ms: Sequence[float]

    @classmethod
    def of(cls, network: bytes, frames: Sequence[Image]) -> Reference:
        """Run it."""
        results, times_ms = [], []
        with OnnxRuntimeEngine(network) as engine:
            for frame in frames:
                start_s = time.perf_counter()
                results.append(engine(frame))
                times_ms.append((time.perf_counter() - start_s) * 1000)
        return cls(results, times_ms)


def frames_to_compare(bundle: Bundle) -> list[Image]:
    """The golden frames, and random ones: half of them noise, half golden frames with noise on them."""
    random = np.random.default_rng(0)
    golden = list(bundle.golden().frames)
    noise = random.integers(0, 256, (RANDOM_FRAMES, *golden[0].shape), np.uint8)
    disturbed = [np.where(frame > 224, frame, golden[n % len(golden)]) for n, frame in enumerate(noise[::2])]
    return [*golden, *noise[1::2], *disturbed]


def changed_head(network: bytes, seed: int) -> bytes:
    """The network with every weight of its head changed a little at random."""
    model = onnx.load_from_string(network)
    random = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(HEAD):
            weights = numpy_helper.to_array(tensor)
            moved = weights * random.uniform(0.9, 1.1, weights.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return model.SerializeToString()


@contextmanager
def lowest_free_memory(cuda: Callable[[], Cuda]) -> Iterator[dict[str, int]]:
    """Watch the GPU's memory in another thread, which has its own context."""
    found = {"free_before_bytes": 0, "free_lowest_bytes": 0}
    done, begun = threading.Event(), threading.Event()

    def watch() -> None:
        with cuda() as gpu:
            found["free_before_bytes"] = found["free_lowest_bytes"] = gpu.free_bytes()
            begun.set()
            while not done.wait(0.05):
                found["free_lowest_bytes"] = min(found["free_lowest_bytes"], gpu.free_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun.wait(10)
    try:
        yield found
    finally:
        done.set()
        watcher.join()
