"""TensorRT on an NVIDIA GPU: the engine for Jetson-class devices.

The first start builds the engine, which takes minutes, and keeps it in a folder; later starts load it from
there, unless network, TensorRT, GPU or options are others.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from hashlib import sha256
from statistics import median
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

from calibration.engine.contract import Inference
from calibration.engine.cuda import PyCuda
from calibration.engine.tensorrt_build import BuildOptions, build
from calibration.engine.tensorrt_cache import Cached, EngineFolder, Key, Miss, Record, plan_digest
from calibration.engine.tensorrt_library import library
from calibration.engine.tensorrt_program import Program, blank_frame
from calibration.errors import EngineError, ScoreMismatchError
from calibration.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import ModuleType, TracebackType
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.cuda import Cuda
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress

    Check = Callable[["TensorRTEngine"], object]

log = logging.getLogger(__name__)

_WARM_UP_RUNS = 3
_TIMED_RUNS = 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where the ONNX network comes from.

    Attributes:
        identity: Differs whenever the content does.
        read: Gives the content; called only when an engine must be built.
    """

    identity: str
    read: Callable[[], bytes]

    @staticmethod
    def of(network: bytes) -> Source:
        """A network in memory, identified by its SHA-256."""
        return Source(sha256(network).hexdigest(), lambda: network)


class TensorRTEngine:
    """The fused network in TensorRT.

    Entering takes minutes when the engine must be built. All calls come from the thread that entered.

    Args:
        source: The network; its precision is that of its layers.
        folder: Where built engines are kept.
        options: Of the build; None takes those that the kept engine was built with, whatever they are.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to end a build early.
        cuda: Opens the GPU.

    Attributes:
        built_because: Why the engine was built on entering; None where a kept one was loaded.
    """

    backend = "tensorrt"
    tolerance = 0.03  # of a backbone in half precision: the worst of 583 magnetic tiles on six settings was 0.022
    _record: Record

    def __init__(  # noqa: PLR0913 - what an engine is made of, each once
        self,
        source: Source,
        folder: Path,
        options: BuildOptions | None = None,
        *,
        progress: Progress = silent,
        cancel: Event | None = None,
        cuda: Callable[[], Cuda] = PyCuda,
    ) -> None:
        self._source = source
        self._folder = EngineFolder(folder)
        self._options = options or BuildOptions.of_record(self._folder.options())
        self._progress = progress
        self._cancel = cancel or Event()
        self._cuda = cuda()
        self._program: Program | None = None
        self.built_because: str | None = None

    def __enter__(self) -> Self:
        """Load, or build and load; warm up."""
        self._cuda.__enter__()  # first: without a driver TensorRT crashes the process
        try:
            self._tensorrt: ModuleType = library()
            self._load()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the engine, its buffers and the GPU."""
        self._leave()

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame."""
        score, score_map = self._opened.run(frame, ("score", "map"))
        return Inference(float(score[0]), score_map[0])

    def features(self, frame: Image) -> NDArray[np.float32]:
        """Features before averaging, (d, h', w')."""
        features: NDArray[np.float32] = self._opened.run(frame, ("features",))[0][0]
        return features

    def refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        """Exchange the head's weights in seconds instead of building for minutes; see ``exchange_head``.

        Args:
            head: ONNX name (``head.*``) -> weights, of the shapes they had.

        Raises:
            EngineError: TensorRT refuses; the engine is closed until it is rebuilt.
        """
        self._opened.refit(head)

    def keep(self, source: Source) -> None:
        """Keep the engine as it is now, as that of another network.

        Raises:
            StorageError: No room or no permission.
        """
        self._source = source
        plan = self._opened.serialised()
        self._record = self._record.model_copy(update={"key": self._key(), "plan_sha256": plan_digest(plan)})
        self._folder.keep(Cached(plan, self._record))

    def rebuild(self, source: Source, reason: str) -> None:
        """Build anew from a network, whatever is kept; frames cannot be scored meanwhile."""
        self._close_program()
        self._source = source
        with self._folder.locked():
            self._open(self._built(reason))

    def measured_ms(self, *, mapped: bool, runs: int = _TIMED_RUNS) -> list[float]:
        """Times of single frames with mapped or copied buffers, which it then has."""
        program = self._opened
        program.attach(mapped=mapped)
        blank = blank_frame(program)
        times_ms = []
        for _ in range(_WARM_UP_RUNS + runs):
            start_s = perf_counter()
            program.run(blank, ("score", "map"))
            times_ms.append((perf_counter() - start_s) * 1000)
        return times_ms[_WARM_UP_RUNS:]

    @property
    def key(self) -> Key:
        """What it is built for."""
        return self._record.key

    @property
    def activation_bytes(self) -> int:
        """Memory of the GPU that one run needs beside weights and buffers."""
        return self._opened.activation_bytes()

    @property
    def _opened(self) -> Program:
        if self._program is None:
            raise EngineError(what="the engine is not open", remedy="open it again: restart the agent")
        return self._program

    def _load(self) -> None:
        found = self._folder.find(self._key())
        if isinstance(found, Cached):
            self._open(found)
            return
        with self._folder.locked():
            found = self._folder.find(self._key())  # another process may have built it meanwhile
            self._open(self._built(found.reason) if isinstance(found, Miss) else found)

    def _built(self, reason: str) -> Cached:
        """Build and keep; ``reason`` says why."""
        self.built_because = reason
        log.info("building the TensorRT engine, which takes minutes: %s", reason)
        network = self._source.read()
        built = build(self._tensorrt, network, self._options, self._folder.timings(), self._progress, self._cancel)
        self._folder.keep_timings(built.timings)
        cached = Cached(built.plan, Record(key=self._key(), plan_sha256=plan_digest(built.plan)))
        self._folder.keep(cached)
        return cached

    def _open(self, cached: Cached) -> None:
        self._record = cached.record
        self._program = Program(self._tensorrt, self._cuda, cached.plan)
        if self._cuda.gpu.integrated and self._record.mapped_ms is None:
            self._record = self._record.model_copy(
                update={
                    "mapped_ms": median(self.measured_ms(mapped=True)),
                    "copied_ms": median(self.measured_ms(mapped=False)),
                }
            )
            if self.built_because is not None:  # the folder is ours to write
                self._folder.keep(Cached(cached.plan, self._record))
        self._program.attach(mapped=self._record.mapped)
        blank = blank_frame(self._program)
        for _ in range(_WARM_UP_RUNS):
            self._program.run(blank, ("features",))

    def _key(self) -> Key:
        gpu = self._cuda.gpu
        return Key(
            network=self._source.identity,
            tensorrt=self._tensorrt.__version__,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            options=asdict(self._options),
        )

    def _leave(self) -> None:
        try:
            self._close_program()
        finally:
            self._cuda.__exit__(None, None, None)

    def _close_program(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.close()


def prove(engine: TensorRTEngine, source: Source, check: Check) -> None:
    """Check an engine that was just opened; a kept one that fails is built anew, once.

    Args:
        engine: Entered.
        source: Its network.
        check: Raises ScoreMismatchError where golden frames do not get their scores.

    Raises:
        ScoreMismatchError: A fresh engine fails, too.
    """
    try:
        check(engine)
    except ScoreMismatchError as error:
        if engine.built_because is not None:
            raise
        engine.rebuild(source, f"the kept one scores otherwise: {error.what}")
        check(engine)


def exchange_head(engine: TensorRTEngine, source: Source, head: Mapping[str, NDArray[Any]], check: Check) -> bool:
    """Give an engine the head of another network with the same backbone, and prove it.

    Args:
        engine: Entered.
        source: The other network, for the case that it must be built.
        head: Its ``head.*`` weights.
        check: Raises ScoreMismatchError where its golden frames do not get their scores.

    Returns:
        Whether exchanging was enough; else the engine was built anew.

    Raises:
        ScoreMismatchError: The engine that was built fails, too.
        EngineError: It cannot be built.
        StorageError: It runs with the new head, but cannot be kept for the next start.
    """
    try:
        engine.refit(head)
        check(engine)
    except (EngineError, ScoreMismatchError) as error:
        reason = error.what
    else:
        engine.keep(source)
        return True
    log.warning("the exchanged head is not good: %s", reason)
    engine.rebuild(source, f"its head could not be exchanged: {reason}")
    check(engine)
    return False
