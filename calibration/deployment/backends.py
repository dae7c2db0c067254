"""Which backend runs the network: the one that is named, or the best that this device has and that scores rightly."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import onnxruntime as ort

from calibration.deployment.tensorrt import source_of
from calibration.engine.cuda_driver import cuda_driver
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.tensorrt import TensorRTEngine, prove
from calibration.errors import EngineError, ScoreMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine
    from calibration.progress import Progress

    Check = Callable[[Engine], object]

log = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A bundle and what engines need to run its network on this device.

    Attributes:
        threads: CPU threads of one inference; 0 takes one for each core.
        cache_dir: Where engines that are built on the device are kept; made when needed.
        progress: Told how far building one has come: step, done, total.
    """

    bundle: Bundle
    threads: int
    cache_dir: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a network.

    Attributes:
        require: Raises EngineError, with the reason, where the device or a library is missing; crashes nowhere.
        open: Makes its engine, which is not entered yet.
        prove: Checks it when it was entered, mending what can be mended.
    """

    require: Callable[[], None]
    open: Callable[[Deployment], Engine]
    prove: Callable[[Engine, Deployment, Check], object] = lambda engine, _, check: check(engine)


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """What this device has.

    Attributes:
        missing: Backends, best first, with the reason why one cannot run here; None: it can.
        named: The configuration asks for this one, and no other will do.
    """

    missing: Mapping[str, str | None]
    named: bool

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that can run here, best first."""
        return tuple(name for name, reason in self.missing.items() if reason is None)

    @property
    def reason(self) -> str:
        """Why the best of them is no better one, for people."""
        better = itertools.takewhile(lambda reason: reason is not None, self.missing.values())
        return self.why(reason for reason in better if reason is not None)

    def why(self, reasons: Iterable[str]) -> str:
        """Reasons against better backends as one text, each once: a missing driver is that of several."""
        joined = "; ".join(dict.fromkeys(reasons))
        return joined or ("named in the configuration" if self.named else "the best there is")


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """An engine that is entered and has proved itself.

    Attributes:
        reason: Why no better one, or why this one, for people.
    """

    engine: Engine
    reason: str


def _require_gpu() -> None:
    cuda_driver()


def _require_tensorrt() -> None:
    _require_gpu()
    for module in ("tensorrt", "pycuda"):
        if importlib.util.find_spec(module) is None:
            raise EngineError(
                what=f"the Python package {module} is not installed",
                remedy="pip install '.[tensorrt]'; on a Jetson into an environment made with --system-site-packages",
            )


def _require_cuda_provider() -> None:
    _require_gpu()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError(
            what=f"this ONNX Runtime {ort.__version__} has no CUDA provider",
            remedy="pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )


def _require_nothing() -> None:
    """ONNX Runtime on the CPU is everywhere."""


def _open_tensorrt(deployment: Deployment) -> Engine:
    return TensorRTEngine(source_of(deployment.bundle), deployment.cache_dir, progress=deployment.progress)


def _prove_tensorrt(engine: Engine, deployment: Deployment, check: Check) -> None:
    prove(cast("TensorRTEngine", engine), source_of(deployment.bundle), check)


def _open_cuda(deployment: Deployment) -> Engine:
    return OnnxRuntimeEngine(deployment.bundle.network, deployment.threads, "cuda")


def _open_cpu(deployment: Deployment) -> Engine:
    return OnnxRuntimeEngine(deployment.bundle.network, deployment.threads)


BACKENDS: Mapping[str, Backend] = {
    "tensorrt": Backend(_require_tensorrt, _open_tensorrt, _prove_tensorrt),
    "cuda": Backend(_require_cuda_provider, _open_cuda),
    "onnxruntime": Backend(_require_nothing, _open_cpu),
}
"""All of them, best first."""


def choose_backend(wanted: str, backends: Mapping[str, Backend] = BACKENDS) -> BackendChoice:
    """What to try on this device, without trying it.

    Args:
        wanted: A name in ``backends``, or ``auto``.
        backends: What there is, best first; the last one is everywhere.

    Raises:
        EngineError: What is wanted is not here.
    """
    if wanted != AUTO:
        _require_named(wanted, backends[wanted])
        return BackendChoice({wanted: None}, named=True)
    return BackendChoice({name: _missing(backend) for name, backend in backends.items()}, named=False)


def _missing(backend: Backend) -> str | None:
    try:
        backend.require()
    except EngineError as error:
        return error.what
    return None


def _require_named(wanted: str, backend: Backend) -> None:
    try:
        backend.require()
    except EngineError as error:
        raise EngineError(
            what=f"the backend {wanted} cannot run here: {error.what}",
            remedy=f"{error.remedy}; or let the agent choose, with engine.backend: {AUTO}",
        ) from error


@contextmanager
def open_engine(
    choice: BackendChoice,
    deployment: Deployment,
    check: Check,
    backends: Mapping[str, Backend] = BACKENDS,
) -> Iterator[OpenEngine]:
    """The first engine of the choice that loads and proves itself, entered; one that does not is logged.

    Args:
        choice: What to try.
        deployment: What it runs.
        check: Raises ScoreMismatchError for an engine that must not serve.
        backends: What there is.

    Raises:
        EngineError: The last one does not load.
        ScoreMismatchError: The last one scores otherwise than calibration did.
    """
    reasons: list[str] = []
    with ExitStack() as stack:
        for name, missing in choice.missing.items():
            opened = missing or _opened(backends[name], deployment, check, stack, is_last=name == choice.backends[-1])
            if not isinstance(opened, str):
                yield OpenEngine(opened, choice.why(reasons))
                return
            if missing is None:
                log.warning("the backend %s does not serve: %s", name, opened)
            reasons.append(opened)


def _opened(
    backend: Backend,
    deployment: Deployment,
    check: Check,
    stack: ExitStack,
    *,
    is_last: bool,
) -> Engine | str:
    """The engine, entered on the stack; or why it does not serve, where another can be tried."""
    try:
        with ExitStack() as attempt:  # what fails is left at once
            engine = attempt.enter_context(backend.open(deployment))
            backend.prove(engine, deployment, check)
            stack.enter_context(attempt.pop_all())
            return engine
    except (EngineError, ScoreMismatchError) as error:
        if is_last:
            raise
        return error.what.splitlines()[0]
