"""Builds a TensorRT engine from ONNX. On the device that will run it this takes minutes, so progress is reported.

Each layer keeps its precision in the ONNX graph ("strongly typed"), in every version from 10.3 to 11.4. Only weights
named ``head.*`` can be replaced in the finished engine, because TensorRT does not fuse replaceable weights. In one that
TensorRT for RTX builds ahead of time, none can.
"""

from __future__ import annotations

import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import Event, Lock, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from calibration.engine.tensorrt_head import head_weights
from calibration.engine.tensorrt_library import process_journal
from calibration.engine.tensorrt_rtx import set_targets
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType, ModuleType

    import tensorrt as trt

    from calibration.engine.tensorrt_library import Journal, Library
    from calibration.progress import Progress


log = logging.getLogger(__name__)

_MEMORY_LEVERS = (
    "close other programs, give the build more with --workspace-mib and --tactic-memory-mib, or let it try less with "
    "--optimisation-level 1; a smaller --size or backbone needs less"
)
# The first appears when memory limits have ruled out every way to compute a layer.
_SIGNS_OF_LITTLE_MEMORY = ("could not find any implementation for node", "out of memory", "outofmemory", "cuda error 2")
_PARSER_LINES = 3
_NO_DRIVER = "CUDA driver version is insufficient"  # of any refusal on a machine without a GPU, and so no reason


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        workspace_mib: Memory that one layer may use while it runs.
        tactic_memory_mib: Memory that the build may use to try ways to compute a layer. On a Jetson, where GPU and CPU
            share memory, it limits everything that the build allocates.
        optimisation_level: 0 builds at once, 5 tries everything; TensorRT's default is 3.
        compute_capabilities: Those that an engine is built for ahead of time; empty for any. TensorRT for RTX heeds
            nothing else, TensorRT all else.
    """

    workspace_mib: int = 1024
    tactic_memory_mib: int = 2048
    optimisation_level: int = 3
    compute_capabilities: tuple[str, ...] = ()

    @classmethod
    def of_record(cls, options: Mapping[str, Any] | None) -> BuildOptions:
        """Options of an earlier build; the defaults without one, or if its version had other options."""
        known = {field.name for field in fields(cls)} - {"compute_capabilities"}
        return cls(**options) if options is not None and set(options) == known else cls()


@dataclass(frozen=True, slots=True)
class Built:
    """A serialised engine, and the measured speeds of layers, which make the next build faster; empty without any."""

    plan: bytes
    timings: bytes


class Phases:
    """Reports TensorRT's phases of the first two levels as progress; called from TensorRT's own threads."""

    def __init__(self, progress: Progress, cancel: Event) -> None:
        self._progress = progress
        self._cancel = cancel
        self._lock = Lock()
        self._roots: set[str] = set()
        self._steps: dict[str, int] = {}

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            if not parent:
                self._roots.add(phase)
            if not parent or parent in self._roots:
                self._steps[phase] = steps
                self._progress(phase, 0, steps)

    def step(self, phase: str, step: int) -> bool:
        """A step, counted from 0, is done; False cancels the build."""
        with self._lock:
            if phase in self._steps:
                self._progress(phase, step + 1, self._steps[phase])
        return not self._cancel.is_set()

    def finish(self, phase: str) -> None:
        """A phase ends."""
        with self._lock:
            self._roots.discard(phase)
            if phase in self._steps:
                steps = self._steps.pop(phase)
                self._progress(phase, steps, steps)


def build(  # noqa: PLR0913, PLR0917 - each is needed once
    library: Library, network: bytes, options: BuildOptions, timings: bytes, progress: Progress, cancel: Event
) -> Built:
    """Build an engine: with TensorRT for the GPU of this machine, with TensorRT for RTX for any that it supports.

    ``timings`` are the speeds of layers from an earlier build, or empty. TensorRT's threads call ``progress``. To stop
    the build, set ``cancel`` from another thread; Ctrl-C sets it as well.

    Raises:
        EngineError: The network cannot be read, memory is short, or the build was cancelled.
        KeyboardInterrupt: Ctrl-C; raised once TensorRT has stopped.
    """
    journal = process_journal(library)
    monitor = _monitor(library.imported(), Phases(progress, cancel))  # here, because it must outlive the builder
    with journal.explained(what=f"{library.name} cannot start to build", remedy=_MEMORY_LEVERS):
        return _build(journal, network, options, timings, monitor, cancel)


def _build(  # noqa: PLR0913, PLR0917 - as above
    journal: Journal,
    network: bytes,
    options: BuildOptions,
    timings: bytes,
    monitor: trt.IProgressMonitor,
    cancel: Event,
) -> Built:
    library = journal.library
    tensorrt: ModuleType = library.imported()
    builder: trt.Builder = tensorrt.Builder(journal.logger)
    definition: trt.INetworkDefinition = builder.create_network(
        1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser: trt.OnnxParser = tensorrt.OnnxParser(definition, journal.logger)  # owns the weights during the build
    if not parser.parse(network):
        raise _parser_error(library, parser)
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default, but precise to three digits only
    config.progress_monitor = monitor
    if library.builds_ahead:
        set_targets(tensorrt, config, options.compute_capabilities)
    else:
        _set_limits(tensorrt, config, options)
        _use_timings(config, timings)
        _mark_head_refittable(tensorrt, definition, config, network)
    with _control_c_cancels(cancel), ThreadPoolExecutor(1, "tensorrt-build") as thread:
        # In another thread: a call into TensorRT would hold up signals in this one.
        built: trt.IHostMemory | None = thread.submit(builder.build_serialized_network, definition, config).result()
    if built is None:
        raise _build_error(journal, options, cancel)
    if library.builds_ahead:
        return Built(bytes(built), b"")
    cache: trt.ITimingCache = config.get_timing_cache()
    return Built(bytes(built), bytes(cache.serialize()))


def _set_limits(tensorrt: ModuleType, config: trt.IBuilderConfig, options: BuildOptions) -> None:
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.TACTIC_DRAM, options.tactic_memory_mib << 20)
    config.builder_optimization_level = options.optimisation_level


def _use_timings(config: trt.IBuilderConfig, timings: bytes) -> None:
    known: trt.ITimingCache | None = config.create_timing_cache(timings)
    if known is None or not config.set_timing_cache(known, ignore_mismatch=False):
        log.info("the kept layer timings belong to another GPU or TensorRT; measuring again")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _mark_head_refittable(
    tensorrt: ModuleType, definition: trt.INetworkDefinition, config: trt.IBuilderConfig, network: bytes
) -> None:
    names = list(head_weights(network))
    refused = [name for name in names if not definition.mark_weights_refittable(name)]
    if refused:  # scores are right all the same, but a new head needs a new build
        log.warning("TensorRT cannot replace %s in this engine", ", ".join(refused))
    if len(names) > len(refused):
        config.set_flag(tensorrt.BuilderFlag.REFIT_INDIVIDUAL)


@contextmanager
def _control_c_cancels(cancel: Event) -> Iterator[None]:
    """On Ctrl-C ask TensorRT to stop, and raise KeyboardInterrupt once it has: raised at once, the build would run on.

    A program that handles the signal itself is expected to set ``cancel``.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    pressed = Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        pressed.set()
        cancel.set()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


def _parser_error(library: Library, parser: trt.OnnxParser) -> EngineError:
    lines = []
    for number in range(min(parser.num_errors, _PARSER_LINES)):
        error: trt.ParserError = parser.get_error(number)
        code: trt.ErrorCode = error.code()
        node = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        said = [line.strip() for line in error.desc().splitlines() if _NO_DRIVER not in line]
        lines.append(f"{node}{code.name}, {' '.join(said)}")
    more = parser.num_errors - len(lines)
    return EngineError(
        what=f"{library.product} cannot read the network: {'; '.join(lines) or 'no reason given'}"
        + (f"; and {more} more" if more > 0 else ""),
        remedy=f"calibrate again, with this version or another backbone; or update {library.name}, or use onnxruntime",
    )


def _build_error(journal: Journal, options: BuildOptions, cancel: Event) -> EngineError:
    if cancel.is_set():
        return EngineError(what="the build of the engine was cancelled", remedy="start it again; nothing was changed")
    product = journal.library.product
    messages = " ".join(journal.errors).lower()
    if any(sign in messages for sign in _SIGNS_OF_LITTLE_MEMORY):
        limits = f"workspace {options.workspace_mib} MiB, tactics {options.tactic_memory_mib} MiB"
        return journal.error(what=f"{product} ran out of memory while building ({limits})", remedy=_MEMORY_LEVERS)
    return journal.error(
        what=f"{product} cannot build the engine",
        remedy=f"see its log above; update {journal.library.name}, or use onnxruntime",
    )


def _monitor(tensorrt: ModuleType, phases: Phases) -> trt.IProgressMonitor:
    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc, name-defined]  # the base class exists on devices only
        """Forwards to ``Phases``."""

        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Called by TensorRT."""
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Called by TensorRT; False cancels."""
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            """Called by TensorRT."""
            phases.finish(phase_name)

    monitor: trt.IProgressMonitor = Monitor()
    return monitor
