"""The engine of a network in its folder: found there if it still fits, else made and written there.

It is made from the engine of another network that differs in the head alone, if there is one, or built.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from calibration.engine.tensorrt_build import BuildOptions, build
from calibration.engine.tensorrt_cache import ANY, Cached, EngineFolder, Key, Record, plan_digest
from calibration.engine.tensorrt_head import body_digest, head_weights
from calibration.errors import EngineError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from threading import Event
    from typing import Any

    from numpy.typing import NDArray

    from calibration.engine.cuda_driver import Gpu
    from calibration.engine.tensorrt_library import Library
    from calibration.progress import Progress

    Refit = Callable[[bytes, Mapping[str, NDArray[Any]]], bytes]

log = logging.getLogger(__name__)

_BUILD = "build the engine: shiftwatch-calibrate build BUNDLE"


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
        options: Build options; None takes those of the kept engine, or of the predecessor, if it fits the GPU.
        progress: Called with (phase, done, total) while building, from other threads.
        cancel: Set it to stop a build early.
        predecessor: Folder of the engine of another network, which may differ from this one in its head alone. It is
            only read.

    Attributes:
        folder: As above.
        built_because: Why the engine was built; None if a kept one was found, or was given another head.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is needed once
        self,
        library: Library,
        source: Source,
        folder: Path,
        options: BuildOptions | None,
        progress: Progress,
        cancel: Event,
        predecessor: Path | None = None,
    ) -> None:
        self._source = source
        self.folder = EngineFolder(folder)
        self.built_because: str | None = None
        self._library = library
        self._options = options
        self._progress = progress
        self._cancel = cancel
        self._predecessor = None if predecessor is None else EngineFolder(predecessor)

    def find(self, gpu: Gpu | None, *, may_build: bool = True, refit: Refit | None = None) -> Cached:
        """The kept engine if it fits; else it is made from the predecessor's and not kept yet, or built and kept.

        Args:
            gpu: What will run it; None if that is another device, for which only an engine ahead of time can be built.
            may_build: Whether it may be made.
            refit: Gives an engine another head; raises EngineError if TensorRT refuses. None to build in any case.

        Raises:
            EngineError: It cannot be built, or may not.
            StorageError: It cannot be kept. One that was built ahead of time is then used all the same.
        """
        found = self.folder.find(self.key(gpu))
        if isinstance(found, Cached):
            return found
        if not may_build:
            what = f"no {self._library.name} engine is ready: {found}"
            raise EngineError(what=what, remedy=f"build it first: {self._library.build_command}")
        try:
            with self.folder.locked():
                found = self.folder.find(self.key(gpu))  # another process may have built it meanwhile
                return self._made(gpu, found, refit) if isinstance(found, str) else found
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
            network=self._source.identity,
            tensorrt=self._library.imported().__version__,
            gpu=name,
            compute_capability=compute_capability,
            options=values,
        )

    def _options_for(self, gpu: Gpu | None) -> BuildOptions:
        if self._options is not None:
            return self._options
        kept = self.folder.key()
        if kept is None and self._predecessor is not None:
            kept = self._predecessor.key()
        if not self._library.builds_ahead:
            return BuildOptions.of_record(kept.options if kept else None)
        if gpu is None:
            return BuildOptions()
        if kept is None or not kept.serves(gpu.compute_capability):
            return BuildOptions(compute_capabilities=(gpu.compute_capability,))
        return BuildOptions(compute_capabilities=kept.compute_capabilities)

    def _made(self, gpu: Gpu | None, reason: str, refit: Refit | None) -> Cached:
        if refit is not None and self._predecessor is not None and not self._cancel.is_set():
            try:
                return self._refitted(self._predecessor, self.key(gpu), refit)
            except EngineError as error:
                log.info("the engine in %s cannot be given the new head: %s", self._predecessor.path, error.what)
        return self._kept(gpu, reason)

    def _refitted(self, predecessor: EngineFolder, key: Key, refit: Refit) -> Cached:
        """The predecessor's engine with the head of this network.

        Raises:
            EngineError: There is none that fits, the networks differ in more than their heads, or TensorRT refuses.
        """
        before = predecessor.key()
        found = predecessor.find(key if before is None else key.model_copy(update={"network": before.network}))
        if isinstance(found, str):
            raise EngineError(what=found, remedy=_BUILD)
        network = self._source.read()
        if found.record.body != body_digest(network):
            raise EngineError(what="the networks differ in more than their heads", remedy=_BUILD)
        plan = refit(found.plan, head_weights(network))
        return Cached(plan, found.record.model_copy(update={"key": key, "plan_sha256": plan_digest(plan)}))

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
        timings = self.folder.timings() or (self._predecessor.timings() if self._predecessor else b"")
        network = self._source.read()
        built = build(self._library, network, options, timings, self._progress, self._cancel)
        if built.timings:
            self.folder.keep_timings(built.timings)
        return Cached(built.plan, Record(key=key, plan_sha256=plan_digest(built.plan), body=body_digest(network)))
