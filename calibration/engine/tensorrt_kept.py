"""The engine of a network in its folder: found there if it still fits, else built and written there."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from calibration.engine.tensorrt_build import BuildOptions, build
from calibration.engine.tensorrt_cache import ANY, Cached, EngineFolder, Key, Record, plan_digest
from calibration.errors import EngineError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from calibration.engine.cuda_driver import Gpu
    from calibration.engine.tensorrt_library import Library
    from calibration.progress import Progress

log = logging.getLogger(__name__)


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


class KeptEngine:
    """An engine that is kept.

    Args:
        library: What builds it.
        source: The network. The engine keeps the precision of each layer.
        folder: Folder that keeps the engine.
        options: Build options; None takes those of the kept engine if it fits the GPU.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to stop a build early.

    Attributes:
        source: As above; replaced with the head.
        folder: As above.
        built_because: Why the engine was built; None if a kept one was found.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is needed once
        self,
        library: Library,
        source: Source,
        folder: Path,
        options: BuildOptions | None,
        progress: Progress,
        cancel: Event,
    ) -> None:
        self.source = source
        self.folder = EngineFolder(folder)
        self.built_because: str | None = None
        self._library = library
        self._options = options
        self._progress = progress
        self._cancel = cancel

    def find(self, gpu: Gpu | None, *, may_build: bool = True) -> Cached:
        """The kept engine if it fits; else it is built and kept.

        Args:
            gpu: What will run it; None if that is another device, for which only an engine ahead of time can be built.
            may_build: Whether it may be built.

        Raises:
            EngineError: It cannot be built, or may not.
            StorageError: It cannot be kept. One that was built ahead of time is then used all the same.
        """
        found = self.folder.find(self.key(gpu))
        if isinstance(found, Cached):
            return found
        if not may_build:
            what = f"no {self._library.name} engine is ready: {found}"
            raise EngineError(what=what, remedy="build it first: shiftwatch-calibrate build BUNDLE")
        try:
            with self.folder.locked():
                found = self.folder.find(self.key(gpu))  # another process may have built it meanwhile
                return self._kept(gpu, found) if isinstance(found, str) else found
        except StorageError as error:
            if not self._library.builds_ahead or gpu is None or isinstance(found, Cached):
                raise
            log.warning("%s; it is built at each start", error.what)
            return self._built(gpu, found)

    def rebuild(self, gpu: Gpu | None, reason: str) -> Cached:
        """Build and keep it, whatever is kept.

        Raises:
            EngineError: It cannot be built.
            StorageError: It cannot be kept.
        """
        with self.folder.locked():
            return self._kept(gpu, reason)

    def key(self, gpu: Gpu | None) -> Key:
        """What the engine is built for."""
        values = asdict(self._options_for(gpu))
        targets = values.pop("compute_capabilities")
        if self._library.builds_ahead or gpu is None:
            name, compute_capability, values = ANY, ", ".join(targets) or ANY, {}
        else:
            name, compute_capability = gpu.name, gpu.compute_capability
        return Key(
            network=self.source.identity,
            tensorrt=self._library.imported().__version__,
            gpu=name,
            compute_capability=compute_capability,
            options=values,
        )

    def _options_for(self, gpu: Gpu | None) -> BuildOptions:
        if self._options is not None:
            return self._options
        kept = self.folder.key()
        if not self._library.builds_ahead:
            return BuildOptions.of_record(kept.options if kept else None)
        if gpu is None:
            return BuildOptions()
        if kept is None or not kept.serves(gpu.compute_capability):
            return BuildOptions(compute_capabilities=(gpu.compute_capability,))
        return BuildOptions(compute_capabilities=kept.compute_capabilities)

    def _kept(self, gpu: Gpu | None, reason: str) -> Cached:
        cached = self._built(gpu, reason)
        self.folder.keep(cached)
        return cached

    def _built(self, gpu: Gpu | None, reason: str) -> Cached:
        """``reason`` goes into the log."""
        self.built_because = reason
        minutes = ", which takes minutes" * (not self._library.builds_ahead)
        log.info("building the %s engine%s: %s", self._library.name, minutes, reason)
        key, options = self.key(gpu), self._options_for(gpu)
        timings = self.folder.timings()
        built = build(self._library, self.source.read(), options, timings, self._progress, self._cancel)
        if built.timings:
            self.folder.keep_timings(built.timings)
        return Cached(built.plan, Record(key=key, plan_sha256=plan_digest(built.plan)))
