"""The worker process of a recalibration: keeps parts, refits the bundle, checks and shadow-runs the new one."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.child_process import peak_memory_mib
from agent.recalibration.ipc import WorkerOrder, receive
from calibration.bundle.bundle import open_bundle
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import (
    BundleError,
    DatasetError,
    DegenerateFeaturesError,
    ModelTooLargeError,
    SettingError,
    ShiftwatchError,
    StorageError,
)
from calibration.imaging.image_files import read_image
from calibration.imaging.synthetic_defects import MOST_DRAWN
from calibration.network.fusion import without_head
from calibration.update.acceptance import acceptance_failures, check_acceptance
from calibration.update.base_network import base_network_of
from calibration.update.marked_defects import score_marked
from calibration.update.part_store import PartStore
from calibration.update.refit import RefitPlan, refit_bundle, refuse_invalid_plan

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator

    from agent.recalibration.ipc import Message
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.marked_defects import MarkedDefects, ThresholdProposal
    from calibration.update.refit import RefitResult

_THREADS = 1
_MOST_NAMES = 20
_REFUSALS = (SettingError, DatasetError, DegenerateFeaturesError, ModelTooLargeError)


def main(order: dict[str, Any], to_agent: socket.socket, _lock: int) -> None:
    """See `WorkerHandle`."""

    def report(kind: str, **more: object) -> None:
        to_agent.sendall(json.dumps({"kind": kind, **more}).encode())

    try:
        RecalibrationWorker(WorkerOrder(**order), iter(lambda: receive(to_agent), None), report).run()
    except ShiftwatchError as error:
        report("failed", what=error.what, remedy=error.remedy, refused=isinstance(error, _REFUSALS))


class RecalibrationWorker:
    """One recalibration; ``report`` sends a `WorkerReport` to the agent."""

    def __init__(self, order: WorkerOrder, messages: Iterable[Message], report: Callable[..., None]) -> None:
        self._order = order
        self._messages = iter(messages)
        self._report = report
        self._plan = RefitPlan(
            order.mode,
            order.old_weight,
            order.false_reject_rate,
            sequential=order.sequential,
            backbone=order.backbone,
            memory_limit_mib=_available_mib(),
        )

    def run(self) -> None:
        """Until the agent ends the process.

        Raises:
            ShiftwatchError: No bundle can be made of these parts, or not with these settings.
        """
        old = open_bundle(Path(self._order.bundle))
        if old.identity != self._order.identity:
            raise BundleError(what=f"{old.path} now holds another bundle", remedy="deploy the active bundle again")
        refuse_invalid_plan(old, self._plan, self._order.parts)
        with ExitStack() as stack:
            engine = None
            if self._plan.mode != "threshold":
                network = without_head(base_network_of(old, self._plan.backbone).network)
                engine = stack.enter_context(OnnxRuntimeEngine(network, _THREADS))
            parts = stack.enter_context(PartStore(Path(self._order.parts_folder), engine))
            self._report("ready")
            self._collect(parts)
            labelled_good = self._add_labelled_good(old, parts)
            fitted = refit_bundle(old, parts, self._plan, Path(self._order.target), self._report_progress)
            self._check_acceptance(old, fitted, parts, labelled_good)
        self._shadow_run(fitted.bundle)

    def _collect(self, parts: PartStore) -> None:
        disk = os.statvfs(self._order.parts_folder)
        free_bytes = disk.f_bavail * disk.f_frsize
        for message in self._messages:
            if message.header["kind"] != "part":
                return
            parts.add(message.header["name"], message.image)
            self._refuse_little_room(parts, len(message.content), free_bytes)
            self._report("collected", parts=len(parts))

    def _refuse_little_room(self, parts: PartStore, frame_bytes: int, free_bytes: int) -> None:
        """Records and images need the disk as well; ``free_bytes`` before the first part."""
        feature_bytes = 0 if self._plan.mode == "threshold" else 4 * int(np.prod(parts.features.shape))
        count = max(len(parts), self._order.expected)
        needed_bytes = (frame_bytes + feature_bytes) * count + feature_bytes * MOST_DRAWN
        if needed_bytes > free_bytes / 2:
            raise StorageError(
                what=f"{count} parts need {needed_bytes / 2**20:.0f} MiB for a while; half of the "
                f"{free_bytes / 2**20:.0f} MiB that are free on the disk is for records and images",
                remedy="make room on the disk of state_dir, or collect fewer parts",
            )

    def _add_labelled_good(self, old: Bundle, parts: PartStore) -> list[str]:
        """Add rejected parts that are labelled as good; the names of those that can be read."""
        new = [each for each in self._order.good if each[0] not in parts.names]
        for name, frame in _network_inputs(old, new):
            parts.add(name, frame)
        return [name for name, _ in new if name in parts.names]

    def _check_acceptance(self, old: Bundle, fitted: RefitResult, parts: PartStore, labelled_good: list[str]) -> None:
        self._report_progress("accepting", 0, 1)
        new = fitted.bundle
        defects = dict(_network_inputs(old, self._order.defects))
        frames = list(defects.values())
        before = score_marked(old, frames, self._order.threshold, _THREADS)
        now = score_marked(new, frames, new.manifest.working_point.threshold, _THREADS)
        result = check_acceptance(old, new, (before, now), _THREADS)
        self._report(
            "fitted",
            bundle=new.identity,
            parts=len(parts),
            leftOut=len(fitted.left_out),
            leftOutResults=fitted.left_out[:_MOST_NAMES],
            markedGood=len(labelled_good),
            markedGoodLeftOut=len(set(labelled_good) & set(fitted.left_out)),
            threshold=new.manifest.working_point.threshold,
            falseRejects=result.false_rejects,
            syntheticFoundBefore=result.synthetic_old,
            syntheticFound=result.forecast.found,
            largestSyntheticFound=result.forecast.largest_found,
            largestSyntheticPx=result.forecast.largest_px,
            smallestFoundPx=result.forecast.smallest_px,
            markedDefects=result.defects,
            markedDefectsFoundBefore=result.defects_old,
            markedDefectsFound=result.defects_new,
            markedDefectResults=_each_marked(defects, before, now)[:_MOST_NAMES],
            thresholdProposalBefore=_payload(before.proposal),
            thresholdProposal=_payload(now.proposal),
            objections=acceptance_failures(result, self._order.min_detection, self._order.least_detection),
            peakMemoryMib=_peak_memory_mib(),
        )

    def _shadow_run(self, new: Bundle) -> None:
        """Score parts that the active bundle has decided on, and report how the two agree."""
        threshold = new.manifest.working_point.threshold
        parts = agreed = bad = bad_before = 0
        with OnnxRuntimeEngine(new.network, _THREADS) as engine:
            for message in self._messages:
                is_bad, was_bad = not engine(message.image).score <= threshold, message.header["notOk"]
                parts, agreed = parts + 1, agreed + (is_bad is was_bad)  # a part without a decision counts as different
                bad, bad_before = bad + is_bad, bad_before + bool(was_bad)
                self._report(
                    "shadowed",
                    shadowParts=parts,
                    agreement=agreed / parts,
                    notOkBefore=bad_before / parts,
                    notOk=bad / parts,
                    peakMemoryMib=_peak_memory_mib(),
                )

    def _report_progress(self, step: str, done: int, total: int) -> None:
        self._report("progress", step=step, done=done, total=total)


def _peak_memory_mib() -> float:
    return round(peak_memory_mib(os.getpid()) or 0.0, 1)


def _available_mib() -> float:
    """Memory that this device has left."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))


def _each_marked(names: Iterable[str], before: MarkedDefects, now: MarkedDefects) -> list[dict[str, Any]]:
    """What each marked defect scores; missed ones first."""
    columns = zip(names, before.scores, before.are_found, now.scores, now.are_found, strict=True)
    keys = "resultId", "scoreBefore", "foundBefore", "score", "found"
    return sorted((dict(zip(keys, row, strict=True)) for row in columns), key=lambda each: bool(each["found"]))


def _payload(proposal: ThresholdProposal | None) -> dict[str, Any] | None:
    if proposal is None:
        return None
    return {
        "threshold": proposal.threshold,
        "found": proposal.found,
        "falseRejects": proposal.false_rejects,
        "falseRejectsNow": proposal.false_rejects_now,
        "words": proposal.words,
    }


def _network_inputs(bundle: Bundle, images: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Image]]:
    """Archived images, given by result and path, preprocessed; those that are gone, or no longer fit, are left out."""
    for name, path in images:
        with suppress(DatasetError):
            yield name, bundle.preprocess(read_image(Path(path)))
