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
from calibration.engine.cuda_choice import open_cuda
from calibration.engine.tensorrt_cache import Cached
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
        predecessor: Folder of the engine of another bundle. If the networks differ in their heads alone, that engine is
            given the new head, in seconds instead of the minutes of a build; `check_or_rebuild` then keeps it.
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
        predecessor: Path | None = None,
        library: Library = TENSORRT,
        cuda: Callable[[], Cuda] = open_cuda,
    ) -> None:
        self.backend = library.backend
        self._library = library
        self._kept = KeptEngine(library, source, folder, options, progress, cancel or Event(), predecessor)
        self._may_build = may_build
        self._cuda = cuda()
        self._program: Program | None = None
        self._unproven: bytes | None = None

    def __enter__(self) -> Self:
        """Build the engine if necessary, load it and warm up."""
        self._cuda.__enter__()  # first, because TensorRT crashes the process without a driver
        try:
            self._find_and_open()
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

    def keep_proven(self) -> None:
        """Write an engine that was given another head to its folder, once its scores are right.

        Raises:
            StorageError: The disk is full or not writable.
        """
        plan, self._unproven = self._unproven, None
        if plan is not None:
            self._kept.folder.keep(Cached(plan, self._record))

    def rebuild(self, reason: str) -> None:
        """Build, whatever engine is kept. Frames cannot be scored meanwhile."""
        self._close_program()
        self._unproven = None
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
    def has_new_head(self) -> bool:
        """Whether it is the engine of another network with this one's head, neither proven nor kept yet."""
        return self._unproven is not None

    @property
    def activation_bytes(self) -> int:
        """GPU memory that one run needs in addition to weights and buffers."""
        return self._running.activation_bytes()

    @property
    def _running(self) -> Program:
        if self._program is None:
            raise EngineError(what="the engine is not open", remedy="restart the agent")
        return self._program

    def _find_and_open(self) -> None:
        refit = None if self._library.builds_ahead else self._refitted
        cached = self._kept.find(self._cuda.gpu, may_build=self._may_build, refit=refit)
        try:
            self._open(cached)
        except EngineError as error:
            if self._unproven is None:
                raise
            self.rebuild(f"the engine with a new head cannot be loaded: {error.what}")

    def _refitted(self, plan: bytes, head: Mapping[str, NDArray[Any]]) -> bytes:
        start_s = perf_counter()
        program = Program(self._library, self._cuda, plan)
        try:
            program.refit(head)
            plan = program.serialised()
        finally:
            program.close()
        self._unproven = plan
        log.info("the engine of the bundle before was given the new head in %.1f s", perf_counter() - start_s)
        return plan

    def _open(self, cached: Cached) -> None:
        self._record = cached.record
        start_s = perf_counter()
        # Otherwise they are those of an engine that another one was copied over.
        kernels = self._kept.folder.kernels() if self._record.compiled_ms is not None else b""
        self._program = Program(self._library, self._cuda, cached.plan, kernels)
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


def check_or_rebuild(engine: TensorRTEngine, check: Check) -> None:
    """Check the scores of an engine that was just opened. Build it once if it was not built and fails.

    Raises:
        ScoreMismatchError: A newly built engine fails as well.
        StorageError: It has a new head, and cannot be kept.
    """
    try:
        check(engine)
    except ScoreMismatchError as error:
        if engine.built_because is not None:
            raise
        which = "engine with a new head" if engine.has_new_head else "kept engine"
        engine.rebuild(f"the {which} has other scores: {error.what}")
        check(engine)
    else:
        engine.keep_proven()
