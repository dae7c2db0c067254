"""Checks the engines that are kept next to a bundle, on any machine: none is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.deployment.engine_source import engine_folder, source_of
from calibration.engine.tensorrt_cache import ANY, PLAN, RECORD, Cached, EngineFolder, Key
from calibration.engine.tensorrt_library import LIBRARIES, TENSORRT_RTX
from calibration.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calibration.bundle.bundle import Bundle
    from calibration.engine.tensorrt_library import Library


def check_kept_engines(bundle: Bundle) -> Iterator[str | EngineError]:
    """Check each engine: undamaged, and of this bundle's network.

    Yields:
        For which version and GPUs it was built; or the error if it cannot be used.
    """
    for library in LIBRARIES:
        folder = EngineFolder(engine_folder(bundle, library.backend))
        if any((folder.path / name).exists() for name in (PLAN, RECORD)):
            yield _check(bundle, library, folder)


def _check(bundle: Bundle, library: Library, folder: EngineFolder) -> str | EngineError:
    kept = folder.key() or Key.model_construct()
    found = folder.find(kept.model_copy(update={"network": source_of(bundle).identity}))
    if isinstance(found, Cached):
        made = f"{library.name} {kept.tensorrt} {gpus_of(kept)}{_other_version(library, kept)}"
        return f"{folder.path}: engine of {made}; intact, of this network, {len(found.plan) / 1e6:.1f} MB"
    command = library.build_command.replace("BUNDLE", bundle.path.name)
    return EngineError(
        what=f"the engine of {library.name} cannot be used: {found}",
        remedy=f"build it again: {command}; or delete {folder.path}",
    )


def _other_version(library: Library, kept: Key) -> str:
    if not library.builds_ahead or library.module is None:  # TensorRT is not imported where there may be no driver
        return ""
    try:
        installed = library.imported().__version__
    except EngineError:  # it is needed only to run the engine
        return ""
    if installed == kept.tensorrt:
        return ""
    return f" (not for {installed}, which is installed here and builds it again)"


def gpus_of(key: Key) -> str:
    """For which GPUs an engine was built, for people."""
    if key.gpu != ANY:
        return f"for {key.gpu} ({key.compute_capability})"
    if key.compute_capabilities:
        return f"for compute capability {key.compute_capability}"
    return f"for all GPUs of compute capability {', '.join(TENSORRT_RTX.compute_capabilities)}"
