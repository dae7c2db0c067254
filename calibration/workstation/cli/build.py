"""``shiftwatch-calibrate build``: the engine of a bundle, ahead of its first use."""

# No deferred annotations here: typer reads them.

import time
from threading import Event
from typing import Annotated, Any, Literal

import typer

from calibration.bundle.bundle import Bundle, check_golden, open_bundle
from calibration.deployment.backends import BACKENDS
from calibration.deployment.engine_source import engine_folder, source_of
from calibration.deployment.kept_engines import gpus_of
from calibration.deployment.latency import measure_latency
from calibration.engine.cuda_driver import cuda_driver
from calibration.engine.tensorrt import TensorRTEngine, check_or_rebuild
from calibration.engine.tensorrt_build import BuildOptions
from calibration.engine.tensorrt_cache import Key
from calibration.engine.tensorrt_kept import KeptEngine
from calibration.engine.tensorrt_library import TENSORRT, TENSORRT_RTX, Library
from calibration.engine.tensorrt_rtx import refuse_other_gpus
from calibration.errors import EngineError, SettingError
from calibration.progress import Progress
from calibration.terminal import escape, progress_bar, say
from calibration.workstation.cli.options import BundlePath

_DEFAULT = BuildOptions()

Target = Annotated[
    Literal["tensorrt", "rtx"],
    typer.Option(
        "--for",
        help="`tensorrt`: for the GPU of this machine, a Jetson for example, in minutes. `rtx`: TensorRT for RTX, for "
        "PCs with a GeForce or RTX GPU, in a second or two, on any x86-64 machine, with or without a GPU.",
    ),
]
Capabilities = Annotated[
    list[str],
    typer.Option(
        "--compute-capability",
        metavar="X.Y",
        help=f"--for rtx: only for these GPUs ({', '.join(TENSORRT_RTX.compute_capabilities)}); repeatable.  "
        "[default: all of them]",
    ),
]
Workspace = Annotated[
    int | None,
    typer.Option(
        "--workspace-mib",
        min=16,
        help=f"--for tensorrt: memory that one layer may use.  [default: {_DEFAULT.workspace_mib}]",
    ),
]
TacticMemory = Annotated[
    int | None,
    typer.Option(
        "--tactic-memory-mib",
        min=64,
        help=f"--for tensorrt: memory for trying out ways to compute a layer.  [default: {_DEFAULT.tactic_memory_mib}]",
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        "--optimisation-level",
        min=0,
        max=5,
        help=f"--for tensorrt: 0 builds fastest; 5 gives the fastest engine.  [default: {_DEFAULT.optimisation_level}]",
    ),
]


def build(  # noqa: PLR0913 - one parameter for each option of the command
    path: BundlePath,
    *,
    target: Target = "tensorrt",
    compute_capability: Capabilities = [],  # noqa: B006 - typer makes a new list
    workspace_mib: Workspace = None,
    tactic_memory_mib: TacticMemory = None,
    optimisation_level: Level = None,
) -> None:
    """Build a bundle's engine ahead of its first use, and check it with the golden frames if this machine can run it.

    A kept engine that still fits is not rebuilt.

    Example, on a Jetson: `shiftwatch-calibrate build washers`

    Example, on a workstation: `shiftwatch-calibrate build washers --for rtx --compute-capability 8.6`
    """
    limits: dict[str, Any] = {
        "workspace_mib": workspace_mib,
        "tactic_memory_mib": tactic_memory_mib,
        "optimisation_level": optimisation_level,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    if target == "tensorrt":
        if compute_capability:
            raise SettingError(
                what="--compute-capability is only for --for rtx: TensorRT builds for the GPU of this machine",
                remedy="add --for rtx, or leave it out",
            )
        _build(open_bundle(path), BuildOptions(**given))
        return
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingError(
            what=f"{names}: TensorRT for RTX tries nothing out when it builds, and needs no limits",
            remedy="leave it out, or build with --for tensorrt",
        )
    for each in compute_capability:
        refuse_other_gpus(each)
    targets = tuple(each for each in TENSORRT_RTX.compute_capabilities if each in compute_capability)
    _build_ahead(open_bundle(path), BuildOptions(compute_capabilities=targets))


def _build(bundle: Bundle, options: BuildOptions) -> None:
    try:
        with progress_bar() as progress:
            done = _checked(bundle, TENSORRT, options, progress)
    except EngineError as error:
        if _has_gpu():
            raise
        remedy = f"{error.remedy}; for another PC with a GeForce or RTX GPU, build here with --for rtx"
        raise EngineError(what=error.what, remedy=remedy) from error
    _say(bundle, TENSORRT, done)


def _build_ahead(bundle: Bundle, options: BuildOptions) -> None:
    start_s = time.perf_counter()
    with progress_bar() as progress:
        folder = engine_folder(bundle, TENSORRT_RTX.backend)
        kept = KeptEngine(TENSORRT_RTX, source_of(bundle), folder, options, progress, Event())
        cached = kept.find(None)
        took = f"{len(cached.plan) / 1e6:.1f} MB in {time.perf_counter() - start_s:.1f} s"
        why = f"built ({escape(kept.built_because)}), {took}" if kept.built_because else "kept from before"
        what = f"{why}; {gpus_of(cached.record.key)}, with {TENSORRT_RTX.product}"
        done = _checked(bundle, TENSORRT_RTX, options, progress) if _runs_here(cached.record.key) else _UNCHECKED
    _say(bundle, TENSORRT_RTX, f"{what}; {done}")


_UNCHECKED = (
    "no GPU here can run it: the device compiles it and checks the golden frames at its first start "
    "(engine.backend: auto or tensorrt_rtx)"
)


def _checked(bundle: Bundle, library: Library, options: BuildOptions, progress: Progress) -> str:
    source, folder = source_of(bundle), engine_folder(bundle, library.backend)
    with TensorRTEngine(source, folder, options, progress=progress, library=library) as engine:
        check_or_rebuild(engine, lambda opened: check_golden(bundle, opened))
        speed = measure_latency(bundle, engine)
    checked = f"golden frames score as calibrated; {speed.median_ms:.2f} ms a frame"
    if library.builds_ahead and engine.built_because is None:
        return checked
    done = f"built ({escape(engine.built_because)})" if engine.built_because else "kept from before"
    return f"{done}; {checked}"


def _runs_here(key: Key) -> bool:
    try:
        BACKENDS[TENSORRT_RTX.backend].require()
    except EngineError:
        return False
    return key.serves(cuda_driver().gpus[0].compute_capability)


def _has_gpu() -> bool:
    try:
        cuda_driver()
    except EngineError:
        return False
    return True


def _say(bundle: Bundle, library: Library, done: str) -> None:
    say(f"engine in {escape(str(engine_folder(bundle, library.backend)))}: {done}")
