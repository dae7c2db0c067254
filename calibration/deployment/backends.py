"""Chooses the backend that runs a bundle's network on this device, and opens its engine.

`choose_backend` finds out which backends can run here, without loading any: is there a GPU, are libraries installed?
`open_engine` opens the best of them. An engine that does not load, or scores golden frames differently from
calibration, is closed and logged, and the next best backend is tried. On a processor it depends on the network whether
OpenVINO or ONNX Runtime is faster, so that is measured at the first start. A backend that the configuration names is
the only candidate.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import platform
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import onnxruntime as ort

from calibration.deployment.engine_source import source_of
from calibration.deployment.fastest import ENGINES, EXACT, Measured, kept_or_measured
from calibration.engine.cuda_choice import chosen_binding
from calibration.engine.cuda_driver import cuda_driver
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.openvino import require_compiling
from calibration.engine.tensorrt import TensorRTEngine, check_or_rebuild
from calibration.engine.tensorrt_library import TENSORRT, TENSORRT_RTX
from calibration.engine.tensorrt_rtx import refuse_other_gpus
from calibration.errors import EngineError, ScoreMismatchError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from threading import Event

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.engine.tensorrt_library import Library
    from calibration.progress import Progress

    Check = Callable[[Engine], object]

log = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A bundle, and what engines need to run its network on this device.

    Attributes:
        threads: CPU threads of one inference; 0 uses one for each core.
        folder: Backend -> folder of the engine that is built for it; created when needed.
        progress: Called with (step, done, total) while an engine is built.
        cancel: Set it to stop a build early.
        may_build: Whether an engine may be built, which takes minutes; otherwise one must be in its folder. And
            whether there is time to measure which engine is fastest.
        predecessor: As ``folder``, of the active bundle; an engine can be made from the one there, which stays as it
            is, if the networks differ in their heads alone.
        fastest_file: File that keeps which engine is fastest on the processor; without one each start measures.
    """

    bundle: Bundle
    threads: int
    folder: Callable[[str], Path]
    progress: Progress
    cancel: Event | None = None
    may_build: bool = True
    predecessor: Callable[[str], Path] | None = None
    fastest_file: Path | None = None

    def measured(self) -> Measured | None:
        """Which engine is fastest on this machine's processor; None if that is unknown and there is no time."""
        return kept_or_measured(self.bundle, self.threads, self.fastest_file, may_measure=self.may_build)


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a network.

    Attributes:
        require: Raises EngineError if the GPU or a library is missing. It must not crash the process.
        open: Creates the engine without entering it.
        check: Runs the caller's check on the entered engine, and repairs the engine if it can.
        belongs_to_thread: The engine may only be used by the thread that entered it.
        is_measured: ``auto`` takes it only where it was measured to be fastest.
    """

    require: Callable[[], None]
    open: Callable[[Deployment], Engine]
    check: Callable[[Engine, Deployment, Check], object] = lambda engine, _, check: check(engine)
    belongs_to_thread: bool = False
    is_measured: bool = False


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The backends to try on this device.

    Attributes:
        obstacles: Backend, best first -> why it cannot run here; None if it can.
        named: The configuration names the backend, so no other is tried.
    """

    obstacles: Mapping[str, str | None]
    named: bool

    @property
    def available(self) -> tuple[str, ...]:
        """Backends that can run here, best first."""
        return tuple(name for name, obstacle in self.obstacles.items() if obstacle is None)

    @property
    def belongs_to_thread(self) -> bool:
        """Whether one of them can only be used by the thread that opens it."""
        return any(BACKENDS[name].belongs_to_thread for name in self.available)

    @property
    def reason(self) -> str:
        """Why the best available backend is used, for people."""
        return self.explain(itertools.takewhile(lambda obstacle: obstacle is not None, self.obstacles.values()))

    def explain(self, obstacles: Iterable[str | None]) -> str:
        """Why no better backend is used, each obstacle once: several backends may lack the same driver."""
        named = ["named in the configuration"] if self.named else []
        return "; ".join(dict.fromkeys([*named, *filter(None, obstacles)])) or "the best there is"


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """An entered engine that passed its check.

    Attributes:
        reason: Why this backend is used, for people.
    """

    engine: Engine
    reason: str


def _require_gpu() -> None:
    cuda_driver()


def _require_tensorrt() -> None:
    _require_gpu()
    _require_packages(TENSORRT)


def _require_tensorrt_rtx() -> None:
    gpu = cuda_driver().gpus[0]
    if gpu.integrated or platform.machine() != "x86_64":
        raise EngineError(
            what=f"TensorRT for RTX is for graphics cards in x86-64 PCs; this is {gpu.name} ({platform.machine()})",
            remedy="use TensorRT, which JetPack has",
        )
    refuse_other_gpus(gpu.compute_capability)
    _require_packages(TENSORRT_RTX)


def _require_packages(library: Library) -> None:
    if library.module is None:
        raise EngineError(what=f"the Python package {library.modules[-1]} is not installed", remedy=library.install)
    chosen_binding()


def _require_cuda_provider() -> None:
    _require_gpu()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError(
            what=f"this ONNX Runtime {ort.__version__} has no CUDA provider",
            remedy="pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )


def _require_openvino() -> None:
    if importlib.util.find_spec("openvino") is None:
        raise EngineError(what="OpenVINO is not installed", remedy=install_extra("openvino"))
    require_compiling()


def _require_nothing() -> None:
    """ONNX Runtime on the CPU runs everywhere."""


def _open_tensorrt(deployment: Deployment, library: Library = TENSORRT) -> Engine:
    return TensorRTEngine(
        source_of(deployment.bundle),
        deployment.folder(library.backend),
        progress=deployment.progress,
        cancel=deployment.cancel,
        may_build=deployment.may_build,
        predecessor=deployment.predecessor and deployment.predecessor(library.backend),
        library=library,
    )


def _open_tensorrt_rtx(deployment: Deployment) -> Engine:
    return _open_tensorrt(deployment, TENSORRT_RTX)


def _check_tensorrt(engine: Engine, deployment: Deployment, check: Check) -> None:
    if deployment.may_build:
        check_or_rebuild(cast("TensorRTEngine", engine), check)
    else:
        check(engine)


def _open_cuda(deployment: Deployment) -> Engine:
    return OnnxRuntimeEngine(deployment.bundle.network, deployment.threads, "cuda")


def _open_openvino(deployment: Deployment) -> Engine:
    measured = deployment.measured()
    name = EXACT if measured is None else measured.fastest(of_openvino=True)
    if name is None:
        raise EngineError(what=f"OpenVINO cannot run this network: {measured}", remedy="use onnxruntime")
    return ENGINES[name](deployment.bundle, deployment.threads)


def _open_cpu(deployment: Deployment) -> Engine:
    return OnnxRuntimeEngine(deployment.bundle.network, deployment.threads)


BACKENDS: Mapping[str, Backend] = {
    "tensorrt": Backend(_require_tensorrt, _open_tensorrt, _check_tensorrt, belongs_to_thread=True),
    "tensorrt_rtx": Backend(_require_tensorrt_rtx, _open_tensorrt_rtx, _check_tensorrt, belongs_to_thread=True),
    "cuda": Backend(_require_cuda_provider, _open_cuda),
    "openvino": Backend(_require_openvino, _open_openvino, is_measured=True),
    "onnxruntime": Backend(_require_nothing, _open_cpu),
}
"""All backends, best first."""


def choose_backend(name: str, backends: Mapping[str, Backend] = BACKENDS) -> BackendChoice:
    """Find out which backends can run on this device, without loading any.

    Args:
        name: A name in ``backends``, or ``auto``.
        backends: All backends, best first. The last one must run everywhere.

    Raises:
        EngineError: The named backend cannot run here.
    """
    if name == AUTO:
        return BackendChoice({each: _obstacle(backend) for each, backend in backends.items()}, named=False)
    try:
        backends[name].require()
    except EngineError as error:
        raise EngineError(
            what=f"the backend {name} cannot run here: {error.what}",
            remedy=f"{error.remedy}; or let the agent choose, with engine.backend: {AUTO}",
        ) from error
    return BackendChoice({name: None}, named=True)


def _obstacle(backend: Backend) -> str | None:
    try:
        backend.require()
    except EngineError as error:
        return error.what
    return None


@contextmanager
def open_engine(
    choice: BackendChoice, deployment: Deployment, check: Check, backends: Mapping[str, Backend] = BACKENDS
) -> Iterator[OpenEngine]:
    """Open the first available backend whose engine loads and passes the check. Log each one that does not.

    Args:
        choice: Backends to try.
        deployment: Bundle to run.
        check: Raises ScoreMismatchError for an engine that must not be used.
        backends: All backends.

    Raises:
        EngineError: The last engine does not load.
        ScoreMismatchError: The last engine scores differently from calibration.
    """
    obstacles: list[str] = []
    for name, obstacle in choice.obstacles.items():
        if obstacle is not None:
            obstacles.append(obstacle)
            continue
        try:
            with ExitStack() as attempt:  # closes an engine that fails
                if backends[name].is_measured:
                    measured = deployment.measured()
                    obstacles.append(str(measured or "not measured yet which engine is fastest"))
                    if not choice.named and (measured is None or not measured.prefers_openvino):
                        continue
                engine = attempt.enter_context(backends[name].open(deployment))
                backends[name].check(engine, deployment, check)
                opened = attempt.pop_all()
        except (EngineError, ScoreMismatchError) as error:
            if name == choice.available[-1]:
                raise
            obstacles.append(error.what.splitlines()[0])
            log.warning("the backend %s cannot be used: %s", name, obstacles[-1])
        else:
            with opened:
                yield OpenEngine(engine, choice.explain(obstacles))
            return
