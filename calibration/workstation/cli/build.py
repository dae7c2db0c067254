"""``shiftwatch-calibrate build``: the TensorRT engine of a bundle, ahead of its first use."""

# No deferred annotations here: typer reads them.

from typing import Annotated

import typer

from calibration.bundle.bundle import check_golden, open_bundle
from calibration.deployment.engine_source import engine_folder, source_of
from calibration.deployment.latency import measure_latency
from calibration.engine.tensorrt import TensorRTEngine, check_or_rebuild
from calibration.engine.tensorrt_build import BuildOptions
from calibration.terminal import escape, progress_bar, say
from calibration.workstation.cli.options import BundlePath

_DEFAULT = BuildOptions()

Workspace = Annotated[int, typer.Option("--workspace-mib", min=16, help="Memory that one layer may use while it runs.")]
TacticMemory = Annotated[
    int, typer.Option("--tactic-memory-mib", min=64, help="Memory for trying out ways to compute a layer.")
]
Level = Annotated[
    int,
    typer.Option("--optimisation-level", min=0, max=5, help="0 builds fastest; 5 gives the fastest engine."),
]


def build(
    path: BundlePath,
    *,
    workspace_mib: Workspace = _DEFAULT.workspace_mib,
    tactic_memory_mib: TacticMemory = _DEFAULT.tactic_memory_mib,
    optimisation_level: Level = _DEFAULT.optimisation_level,
) -> None:
    """Build a bundle's TensorRT engine, on the device that will run it, and check it with the golden frames.

    Takes minutes on a Jetson. A kept engine that still fits is not rebuilt.

    Example: `shiftwatch-calibrate build washers`
    """
    bundle = open_bundle(path)
    options = BuildOptions(workspace_mib, tactic_memory_mib, optimisation_level)
    source, folder = source_of(bundle), engine_folder(bundle)
    with progress_bar() as progress, TensorRTEngine(source, folder, options, progress=progress) as engine:
        check_or_rebuild(engine, source, lambda opened: check_golden(bundle, opened))
        speed = measure_latency(bundle, engine)
    done = f"built ({escape(engine.built_because)})" if engine.built_because else "kept from before"
    how = f"{done}; golden frames score as calibrated; {speed.median_ms:.2f} ms a frame"
    say(f"engine in {escape(str(folder))}: {how}")
