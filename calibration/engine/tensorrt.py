"""The TensorRT engine for NVIDIA GPUs, Jetson devices among them.

The first start builds the engine, which takes minutes, and keeps it in a folder. Later starts load it from there,
unless network, TensorRT, GPU or build options have changed.
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
from calibration.engine.tensorrt_cache import Cached, EngineFolder, Key, Record, plan_digest
from calibration.engine.tensorrt_library import TENSORRT
from calibration.engine.tensorrt_program import Program
from calibration.errors import EngineError, ScoreMismatchError
from calibration.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.cuda import Cuda
    from calibration.engine.tensorrt_library import Library
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
        identity: Differs whenever the content differs.
        read: Returns the content. Called only when an engine must be built.
    """

    identity: str
    read: Callable[[], bytes]

    @staticmethod
    def of(network: bytes) -> Source:
        """A network in memory, identified by its SHA-256."""
        return Source(sha256(network).hexdigest(), lambda: network)


class TensorRTEngine:
    """The fused network in TensorRT.

    Entering takes minutes if the engine must be built. All calls must come from the thread that entered.

    Args:
        source: The network. The engine keeps the precision of each layer.
        folder: Folder that keeps the built engine.
        options: Build options; None takes those of the kept engine, whatever they are.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to stop a build early.
        may_build: Whether entering may build; otherwise the engine must be in the folder.
        library: TensorRT, or TensorRT for RTX.
        cuda: Opens the GPU.

    Attributes:
        built_because: Why the engine was built; None if a kept one was loaded.
    """

    tolerance = 0.03  # half precision: the worst of 583 magnetic tiles with six settings was 0.022
    _record: Record

    def __init__(  # noqa: PLR0913 - each is needed once
        self,
        source: Source,
        folder: Path,
        options: BuildOptions | None = None,
        *,
        progress: Progress = silent,
        cancel: Event | None = None,
        may_build: bool = True,
        library: Library = TENSORRT,
        cuda: Callable[[], Cuda] = PyCuda,
    ) -> None:
        self.backend = library.backend
        self._library = library
        self._source = source
        self._folder = EngineFolder(folder)
        self._options = options or BuildOptions.of_record(self._folder.options())
        self._progress = progress
        self._cancel = cancel or Event()
        self._may_build = may_build
        self._cuda = cuda()
        self._program: Program | None = None
        self.built_because: str | None = None

    def __enter__(self) -> Self:
        """Build the engine if necessary, load it and warm up."""
        self._cuda.__enter__()  # first, because TensorRT crashes the process without a driver
        try:
            self._load()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Release the engine, its buffers and the GPU."""
        self._close()

    def __call__(self, frame: Image) -> Inference:
        """Score one preprocessed frame."""
        score, score_map = self._running.run(frame)
        return Inference(float(score[0]), score_map[0])

    def refit(self, head: Mapping[str, NDArray[Any]]) -> None:
        """Replace the weights of the head; see `replace_engine_head`.

        Raises:
            EngineError: TensorRT refuses. The engine is closed until it is rebuilt.
        """
        self._running.refit(head)

    def keep(self, source: Source) -> None:
        """Write the current engine to its folder, as the engine of another network.

        Raises:
            StorageError: The disk is full or not writable.
        """
        self._source = source
        plan = self._running.serialised()
        self._record = self._record.model_copy(update={"key": self._key(), "plan_sha256": plan_digest(plan)})
        self._folder.keep(Cached(plan, self._record))

    def rebuild(self, source: Source, reason: str) -> None:
        """Build from a network, whatever engine is kept. Frames cannot be scored meanwhile."""
        self._close_program()
        self._source = source
        with self._folder.locked():
            self._open(self._built(reason))

    def measured_ms(self, *, mapped: bool, runs: int = _TIMED_RUNS) -> list[float]:
        """Time single frames with mapped or copied buffers. The engine then keeps these buffers."""
        program = self._running
        program.attach(mapped=mapped)
        times_ms = []
        for _ in range(_WARM_UP_RUNS + runs):
            start_s = perf_counter()
            program.run_blank()
            times_ms.append((perf_counter() - start_s) * 1000)
        return times_ms[_WARM_UP_RUNS:]

    @property
    def key(self) -> Key:
        """What the engine was built for."""
        return self._record.key

    @property
    def activation_bytes(self) -> int:
        """GPU memory that one run needs in addition to weights and buffers."""
        return self._running.activation_bytes()

    @property
    def _running(self) -> Program:
        if self._program is None:
            raise EngineError(what="the engine is not open", remedy="restart the agent")
        return self._program

    def _load(self) -> None:
        found = self._folder.find(self._key())
        if isinstance(found, Cached):
            self._open(found)
            return
        if not self._may_build:
            raise EngineError(
                what=f"no {self._library.name} engine is ready: {found}", remedy="build it first; this takes minutes"
            )
        with self._folder.locked():
            found = self._folder.find(self._key())  # another process may have built it meanwhile
            self._open(self._built(found) if isinstance(found, str) else found)

    def _built(self, reason: str) -> Cached:
        """Build and write to the folder; ``reason`` goes into the log."""
        self.built_because = reason
        log.info(
            "building the %s engine%s: %s",
            self._library.name,
            ", which takes minutes" * (not self._library.builds_ahead),
            reason,
        )
        network = self._source.read()
        built = build(self._library, network, self._options, self._folder.timings(), self._progress, self._cancel)
        if built.timings:
            self._folder.keep_timings(built.timings)
        cached = Cached(built.plan, Record(key=self._key(), plan_sha256=plan_digest(built.plan)))
        self._folder.keep(cached)
        return cached

    def _open(self, cached: Cached) -> None:
        self._record = cached.record
        self._program = Program(self._library, self._cuda, cached.plan)
        if self._cuda.gpu.integrated and self._record.mapped_ms is None:
            self._record = self._record.model_copy(
                update={
                    "mapped_ms": median(self.measured_ms(mapped=True)),
                    "copied_ms": median(self.measured_ms(mapped=False)),
                }
            )
            if self.built_because is not None:  # otherwise the folder may be read-only
                self._folder.keep(Cached(cached.plan, self._record))
        self._program.attach(mapped=self._record.mapped)
        for _ in range(_WARM_UP_RUNS):
            self._program.run_blank()

    def _key(self) -> Key:
        gpu = self._cuda.gpu
        return Key(
            network=self._source.identity,
            tensorrt=self._library.imported().__version__,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            options=asdict(self._options),
        )

    def _close(self) -> None:
        try:
            self._close_program()
        finally:
            self._cuda.__exit__(None, None, None)

    def _close_program(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.close()


def check_or_rebuild(engine: TensorRTEngine, source: Source, check: Check) -> None:
    """Check the scores of an engine that was just opened. Rebuild it once if it was loaded from disk and fails.

    Raises:
        ScoreMismatchError: A newly built engine fails as well.
    """
    try:
        check(engine)
    except ScoreMismatchError as error:
        if engine.built_because is not None:
            raise
        engine.rebuild(source, f"the kept engine has other scores: {error.what}")
        check(engine)


def replace_engine_head(engine: TensorRTEngine, source: Source, head: Mapping[str, NDArray[Any]], check: Check) -> bool:
    """Give an entered engine the head of another network with the same backbone, and check its scores.

    This takes seconds instead of the minutes of a build. ``head`` maps ONNX names (``head.*``) to weights of unchanged
    shapes.

    Returns:
        Whether replacing the weights was enough. Otherwise the engine was rebuilt.

    Raises:
        ScoreMismatchError: The rebuilt engine fails as well.
        EngineError: The engine cannot be built.
        StorageError: The engine runs with the new head, but cannot be kept for the next start.
    """
    try:
        engine.refit(head)
        check(engine)
    except (EngineError, ScoreMismatchError) as error:
        reason = error.what
    else:
        engine.keep(source)
        return True
    log.warning("the head cannot be replaced, so the engine is rebuilt: %s", reason)
    engine.rebuild(source, f"its head could not be replaced: {reason}")
    check(engine)
    return False
