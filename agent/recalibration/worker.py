"""What the learning process does: keep parts, learn from them, prove it, judge beside the old bundle."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.child_process import peak_memory_mib
from calibration.bundle.bundle import open_bundle
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError, DatasetError, StorageError
from calibration.imaging.image_files import read_image
from calibration.network.fusion import without_head
from calibration.update.acceptance import acceptance_failures, check_acceptance
from calibration.update.base_network import base_network_of
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle, refuse_invalid_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.recalibration.ipc import Message, Told
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.refit import RefitResult

_THREADS = 1
_NAMED = 20


class RecalibrationWorker:
    """One lesson.

    Args:
        order: What to learn from, and how: see `course`.
        messages: Parts, and what to do next.
        tell: Tells the agent.
    """

    def __init__(self, order: Told, messages: Iterable[Message], tell: Callable[..., None]) -> None:
        self._order = order
        self._messages = iter(messages)
        self._tell = tell
        self._plan = RefitPlan(
            order["mode"],
            order["oldWeight"],
            order["falseRejectRate"],
            sequential=order["sequential"],
            backbone=order["backbone"],
            memory_limit_mib=_available_mib(),
        )

    def run(self) -> None:
        """Until the agent ends the process.

        Raises:
            ShiftwatchError: It cannot be learnt, or not so.
        """
        bundle = open_bundle(Path(self._order["bundle"]))
        if bundle.identity != self._order["identity"]:
            raise BundleError(what=f"{bundle.path} holds another bundle now", remedy="deploy the one that judges again")
        refuse_invalid_plan(bundle, self._plan, self._order["parts"])
        with ExitStack() as stack:
            engine = None
            if self._plan.mode != "threshold":
                network = without_head(base_network_of(bundle, self._plan.backbone).network)
                engine = stack.enter_context(OnnxRuntimeEngine(network, _THREADS))
            collection = stack.enter_context(PartStore(Path(self._order["folder"]), engine))
            self._tell("ready")
            self._collect(collection)
            marked = self._add_marked(bundle, collection)
            relearnt = refit_bundle(bundle, collection, self._plan, Path(self._order["target"]), self._progress)
            self._prove(bundle, relearnt, collection, marked)
        self._shadow(relearnt.bundle)

    def _collect(self, collection: PartStore) -> None:
        disk = os.statvfs(self._order["folder"])
        free = disk.f_bavail * disk.f_frsize
        for message in self._messages:
            if message.header["kind"] != "part":
                return
            collection.add(message.header["name"], message.image)
            self._refuse_little_room(collection, len(message.content), free)
            self._tell("collected", parts=len(collection))

    def _refuse_little_room(self, collection: PartStore, frame_bytes: int, free: int) -> None:
        """Records and pictures need the disk, too; ``free`` bytes were before the first part."""
        feature_bytes = 0 if self._plan.mode == "threshold" else 4 * int(np.prod(collection.features.shape))
        parts = max(len(collection), self._order["expected"])
        needed = (frame_bytes + feature_bytes) * parts
        if needed > free / 2:
            raise StorageError(
                what=f"{parts} parts need {needed / 2**20:.0f} MiB for a while, and half of the {free / 2**20:.0f} MiB "
                "that are free on the disk is for records and pictures",
                remedy="make room on the disk of state_dir, or collect fewer parts",
            )

    def _add_marked(self, bundle: Bundle, collection: PartStore) -> list[str]:
        """Pictures of parts that were rejected and that a person called good; names of those that can be read."""
        fresh = [one for one in self._order["good"] if one[0] not in collection.names]
        for name, path in fresh:
            for frame in _network_inputs(bundle, [path]):
                collection.add(name, frame)
        return [name for name, _ in fresh if name in collection.names]

    def _prove(self, old: Bundle, relearnt: RefitResult, collection: PartStore, marked: list[str]) -> None:
        self._progress("proving", 0, 1)
        new = relearnt.bundle
        defects = list(_network_inputs(old, self._order["defects"]))
        proof = check_acceptance(old, new, collection, defects, _THREADS)
        self._tell(
            "learnt",
            identity=new.identity,
            threshold=new.manifest.working_point.threshold,
            parts=len(collection),
            marked=len(marked),
            markedLeftOut=len(set(marked) & set(relearnt.left_out)),
            leftOut=len(relearnt.left_out),
            leftOutNames=relearnt.left_out[:_NAMED],
            proof=asdict(proof),
            objections=acceptance_failures(proof, self._order["minDetection"]),
            peakMib=peak_memory_mib(os.getpid()) or 0.0,
        )

    def _shadow(self, new: Bundle) -> None:
        threshold = new.manifest.working_point.threshold
        parts = agreed = bad = bad_before = 0
        with OnnxRuntimeEngine(new.network, _THREADS) as engine:
            for message in self._messages:
                is_bad, was_bad = not engine(message.image).score <= threshold, message.header["notOk"]
                parts, agreed = parts + 1, agreed + (is_bad is was_bad)  # which is neither where nothing was decided
                bad, bad_before = bad + is_bad, bad_before + bool(was_bad)
                self._tell(
                    "judged",
                    parts=parts,
                    agreed=agreed,
                    bad=bad,
                    badBefore=bad_before,
                    peakMib=peak_memory_mib(os.getpid()) or 0.0,
                )

    def _progress(self, step: str, done: int, total: int) -> None:
        self._tell("progress", step=step, done=done, total=total)


def _available_mib() -> float:
    """Memory that this device has left."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))


def _network_inputs(bundle: Bundle, paths: Iterable[str]) -> Iterator[Image]:
    """Of pictures in the archive; those that it has removed meanwhile, or that do not fit any more, are left out."""
    for path in paths:
        with suppress(DatasetError):
            yield bundle.preprocess(read_image(Path(path)))
