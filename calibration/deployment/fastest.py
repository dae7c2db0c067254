"""Measures which engine runs a bundle's network fastest on this machine's own processor, and keeps the answer.

An engine whose scores of the golden frames differ from calibration's does not count. The measurement is a process of
its own: a library that crashes on this processor ends only that, and one that is not used takes no memory afterwards.
"""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from math import inf, isnan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, ValidationError

from calibration.atomic_file import replace_file
from calibration.bundle.bundle import NETWORK, golden_checks, open_bundle
from calibration.deployment.engine_source import source_of
from calibration.deployment.latency import processor_name
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.engine.openvino import OpenVinoEngine, devices
from calibration.errors import EngineError, ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calibration.bundle.bundle import Bundle
    from calibration.engine.contract import Engine

    Open = Callable[[Bundle, int], Engine]

log = logging.getLogger(__name__)

_MEASURING_S = 1.0
_LIMIT_S = 120
_FEWEST_TURNS, _MOST_TURNS = 5, 30
_TENFOLD = 10.0
_CLEARLY = 0.9
"""An engine is preferred to a more exact one that takes longer by this factor."""
EXACT = "OpenVINO"
ENGINES: Mapping[str, Open] = {
    "ONNX Runtime": lambda bundle, threads: OnnxRuntimeEngine(bundle.network, threads),
    EXACT: lambda bundle, threads: OpenVinoEngine(bundle.network, threads),
    "OpenVINO FP16": lambda bundle, threads: OpenVinoEngine(source_of(bundle).read(), threads, "as in the network"),
    "OpenVINO BF16": lambda bundle, threads: OpenVinoEngine(bundle.network, threads, "bf16"),
    "OpenVINO on the GPU": lambda bundle, _: OpenVinoEngine(source_of(bundle).read(), 0, "as in the network", "gpu"),
}
"""All engines by their names for people, most exact first."""


def engines_here() -> Mapping[str, Open]:
    """The engines that this machine's processor is made for.

    Raises:
        EngineError: OpenVINO cannot be loaded.
    """
    found = dict(devices())
    has = {*found, *found.get("CPU", ())}
    needed = {"OpenVINO FP16": "FP16", "OpenVINO BF16": "BF16", "OpenVINO on the GPU": "GPU"}
    return {name: engine for name, engine in ENGINES.items() if name not in needed or needed[name] in has}


class Key(BaseModel):
    """What was measured; another network, version, processor or number of threads is measured again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    onnxruntime: str
    openvino: str
    processor: str
    threads: int

    @staticmethod
    def of(bundle: Bundle, threads: int) -> Key:
        """What would be measured now."""
        try:
            openvino = version("openvino")
        except PackageNotFoundError:  # a Debian package may lack it
            openvino = "unknown"
        return Key(
            network=bundle.manifest.files[NETWORK],
            onnxruntime=ort.__version__,
            openvino=openvino,
            processor=processor_name(),
            threads=threads,
        )


class Measured(BaseModel):
    """The content of the file.

    Attributes:
        key: What was measured.
        times_ms: Engine -> time of a frame, most exact first.
        refused: Engine -> why it does not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: Key
    times_ms: dict[str, float]
    refused: dict[str, str]

    @property
    def prefers_openvino(self) -> bool:
        """Whether an engine of OpenVINO is the one to use."""
        fastest = self.fastest(of_openvino=False)
        return fastest is not None and fastest.startswith(EXACT)

    def fastest(self, *, of_openvino: bool) -> str | None:
        """The engine to use; None if none counts. A less exact one must be clearly faster.

        Args:
            of_openvino: ONNX Runtime does not count.
        """
        best = None
        for name, time_ms in self.times_ms.items():
            if of_openvino and not name.startswith(EXACT):
                continue
            if best is None or time_ms < _CLEARLY * self.times_ms[best]:
                best = name
        return best

    def __str__(self) -> str:
        """For people, fastest first."""
        times = sorted(self.times_ms.items(), key=lambda item: item[1])
        parts = [f"{name} {time_ms:.1f}{' ms' * (number == 0)}" for number, (name, time_ms) in enumerate(times)]
        parts += [f"{name} refused ({why})" for name, why in self.refused.items()]
        return f"{', '.join(parts)}; measured at the first start"


_not_kept: dict[Key, Measured] = {}


def kept_or_measured(bundle: Bundle, threads: int, file: Path | None, *, may_measure: bool) -> Measured | None:
    """The measurement that the file keeps, else a new one, which takes a second or two and is kept.

    Args:
        bundle: Bundle to run.
        threads: CPU threads of one inference; 0 uses one for each core.
        file: Keeps the measurement; without one, or where it cannot be written, this process remembers it.
        may_measure: Whether there is time to measure.

    Returns:
        None if nothing is kept and there is no time.

    Raises:
        EngineError: The measurement could not start, or hung.
    """
    key = Key.of(bundle, threads)
    if key in _not_kept:
        return _not_kept[key]
    if file is not None:
        with suppress(OSError, ValidationError):
            kept = Measured.model_validate_json(file.read_bytes())
            if kept.key == key:
                return kept
    if not may_measure:
        return None
    log.info("measuring which engine is fastest on this processor; this takes a few seconds")
    measured = _measured_apart(bundle, key)
    if file is None:
        _not_kept[key] = measured
        return measured
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, measured.model_dump_json(indent=2).encode())
    except OSError as error:
        log.warning("which engine is fastest cannot be kept in %s: %s", file, error.strerror)
        _not_kept[key] = measured
    return measured


def _measured_apart(bundle: Bundle, key: Key) -> Measured:
    arguments = (os.fsencode(bundle.path), key.threads)
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import print_measured; print_measured{arguments!r}"
    try:
        ended = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(
            what=f"it cannot be measured which engine is fastest: {error.__class__.__name__}",
            remedy="close other programs and start again",
        ) from error
    try:
        return Measured.model_validate_json(ended.stdout)
    except ValidationError:
        lines = ended.stderr.decode(errors="replace").split("\n") if ended.returncode > 0 else []
        said = next((line for line in reversed(lines) if line.strip()), f"exit code {ended.returncode}")
        return Measured(key=key, times_ms={}, refused={EXACT: f"it ended with {said.strip()}"})


def print_measured(path: bytes, threads: int) -> None:
    """Measure in this process, and print the content of the file; an error ends it, with one line on stderr."""
    os.nice(19)  # an inspection may be running; the comparison stays fair, because the engines take turns
    try:
        bundle = open_bundle(Path(os.fsdecode(path)))
        measured = _measured(bundle, Key.of(bundle, threads), engines_here())
    except ShiftwatchError as error:
        sys.exit(error.what.splitlines()[0])
    sys.stdout.write(measured.model_dump_json())


def _measured(bundle: Bundle, key: Key, engines: Mapping[str, Open]) -> Measured:
    refused: dict[str, str] = {}
    with ExitStack() as stack:
        entered: dict[str, Engine] = {}
        for name, create in engines.items():
            try:
                engine = stack.enter_context(create(bundle, key.threads))
                worst = _deviation(bundle, engine)
            except EngineError as error:
                refused[name] = error.what.splitlines()[0]
                continue
            if worst <= max(bundle.manifest.golden_tolerance, engine.tolerance):
                entered[name] = engine
            else:
                refused[name] = f"scores differ {f'by {worst:.1%}' if worst < _TENFOLD else 'more than tenfold'}"
        return Measured(key=key, times_ms=_times_ms(bundle, entered), refused=refused)


def _deviation(bundle: Bundle, engine: Engine) -> float:
    """The largest deviation from the scores of calibration; infinite if a score is not a number."""
    checks = golden_checks(bundle.golden(), bundle.manifest.working_point.threshold, engine)
    return max((inf if isnan(check.deviation) else check.deviation) for check in checks)


def _times_ms(bundle: Bundle, engines: Mapping[str, Engine]) -> dict[str, float]:
    """Median time of a frame with the first engine, and with the others by the median of their ratios to it.

    The engines take turns, so that whatever else runs here slows all of them.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in engines}
    end_s = perf_counter() + _MEASURING_S
    for turn, frame in zip(range(_MOST_TURNS), itertools.cycle(bundle.golden().frames), strict=False):
        if turn >= _FEWEST_TURNS and perf_counter() > end_s:
            break
        for name, engine in engines.items():
            engine(frame)  # the engine before has filled the caches with its own weights
            start_s = perf_counter()
            engine(frame)
            times_ms[name].append((perf_counter() - start_s) * 1000)
    first = next(iter(times_ms.values()), [])
    return {
        name: median(first) * median(mine / its for mine, its in zip(each, first, strict=True))
        for name, each in times_ms.items()
    }
