"""The TensorRT engine for NVIDIA GPUs, Jetson devices among them.

The first start builds the engine, which takes minutes, and keeps it in a folder. Later starts load it from there,
unless network, TensorRT, GPU or build options have changed. With TensorRT for RTX the engine was built ahead of time;
the first start compiles it for the GPU and keeps what was compiled.
"""

from __future__ import annotations

import logging
from statistics import median
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

from calibration.engine.contract import Inference
from calibration.engine.cuda import PyCuda
from calibration.engine.tensorrt_cache import Cached, plan_digest
from calibration.engine.tensorrt_kept import KeptEngine
from calibration.engine.tensorrt_library import TENSORRT
from calibration.engine.tensorrt_program import Program
from calibration.errors import EngineError, ScoreMismatchError, StorageError
from calibration.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from calibration.engine.cuda import Cuda
    from calibration.engine.tensorrt_build import BuildOptions
    from calibration.engine.tensorrt_cache import Key, Record
    from calibration.engine.tensorrt_kept import Source
    from calibration.engine.tensorrt_library import Library
    from calibration.imaging.preprocess import Image
    from calibration.progress import Progress

    Check = Callable[["TensorRTEngine"], object]

log = logging.getLogger(__name__)

_WARM_UP_RUNS = 3
_TIMED_RUNS = 20


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
        self._kept = KeptEngine(library, source, folder, options, progress, cancel or Event())
        self._may_build = may_build
        self._cuda = cuda()
        self._program: Program | None = None

    def __enter__(self) -> Self:
        """Build the engine if necessary, load it and warm up."""
        self._cuda.__enter__()  # first, because TensorRT crashes the process without a driver
        try:
            self._open(self._kept.find(self._cuda.gpu, may_build=self._may_build))
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
        self._kept.source = source
        plan, key = self._running.serialised(), self._kept.key(self._cuda.gpu)
        self._record = self._record.model_copy(update={"key": key, "plan_sha256": plan_digest(plan)})
        self._kept.folder.keep(Cached(plan, self._record))

    def rebuild(self, source: Source, reason: str) -> None:
        """Build from a network, whatever engine is kept. Frames cannot be scored meanwhile."""
        self._close_program()
        self._kept.source = source
        self._open(self._kept.rebuild(self._cuda.gpu, reason))

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
    def built_because(self) -> str | None:
        """Why the engine was built; None if a kept one was loaded."""
        return self._kept.built_because

    @property
    def key(self) -> Key:
        """What the engine was built for."""
        return self._record.key

    @property
    def builds_ahead(self) -> bool:
        """Whether another head needs another engine, which is built ahead of time in a second or two."""
        return self._library.builds_ahead

    @property
    def activation_bytes(self) -> int:
        """GPU memory that one run needs in addition to weights and buffers."""
        return self._running.activation_bytes()

    @property
    def _running(self) -> Program:
        if self._program is None:
            raise EngineError(what="the engine is not open", remedy="restart the agent")
        return self._program

    def _open(self, cached: Cached) -> None:
        self._record = cached.record
        start_s = perf_counter()
        self._program = Program(self._library, self._cuda, cached.plan, self._kept.folder.kernels())
        self._measure_buffers(cached.plan)
        self._program.attach(mapped=self._record.mapped)
        for _ in range(_WARM_UP_RUNS):
            self._program.run_blank()
        if self._library.builds_ahead:
            self._keep_kernels((perf_counter() - start_s) * 1000)

    def _measure_buffers(self, plan: bytes) -> None:
        if not self._cuda.gpu.integrated or self._record.mapped_ms is not None:
            return
        times_ms = {
            "mapped_ms": median(self.measured_ms(mapped=True)),
            "copied_ms": median(self.measured_ms(mapped=False)),
        }
        self._record = self._record.model_copy(update=times_ms)
        if self.built_because is not None:  # otherwise the folder may be read-only
            self._kept.folder.keep(Cached(plan, self._record))

    def _keep_kernels(self, loaded_ms: float) -> None:
        kernels = self._running.new_kernels
        how = "with the kernels of an earlier start" if kernels is None else f"compiling it for {self._cuda.gpu.name}"
        log.info("the %s engine was loaded in %.1f s, %s", self._library.name, loaded_ms / 1000, how)
        if kernels is None:
            return
        self._record = self._record.model_copy(update={"compiled_ms": loaded_ms})
        try:
            self._kept.folder.keep_kernels(kernels, self._record)
        except StorageError as error:
            log.warning("%s; so it is compiled at each start", error.what)

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

    With TensorRT this takes seconds instead of the minutes of a build; TensorRT for RTX builds in a second or two.
    ``head`` maps ONNX names (``head.*``) to weights of unchanged shapes.

    Returns:
        Whether replacing the weights was enough. Otherwise the engine was rebuilt.

    Raises:
        ScoreMismatchError: The rebuilt engine fails as well.
        EngineError: The engine cannot be built.
        StorageError: The engine runs with the new head, but cannot be kept for the next start.
    """
    if engine.builds_ahead:
        engine.rebuild(source, "it has a new head")
        check(engine)
        return False
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
