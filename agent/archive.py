"""Pictures of what was found, on this device's disk: as much as may be kept, never so much that the disk fills.

A snapshot is a frame (``.jpg``), the same with the heat map (``.overlay.jpg``) and its numbers (``.json``), in one
folder a day (UTC). The ``.json`` comes last: where it is, the pictures are whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import queue
import re
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.caption import Caption, captioned
from calibration.errors import ShiftwatchError
from calibration.overlay import overlay

if TYPE_CHECKING:
    from typing_extensions import Self

    from calibration.overlay import Array
    from calibration.preprocess import Image, Region

_MIB = 1024 * 1024
_WAITING_AT_MOST = 8
_FLUSH_TIMEOUT_S = 1.0
_JPEG_QUALITY = 92
_KEEP_FREE_BYTES = 500 * _MIB
_KEEP_FREE_SHARE = 0.02
# Pruning a little more than needed, so that not every snapshot has to look through the whole archive.
_PRUNED_SHARE = 0.95
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_OWN_FILE = re.compile(r"(\d{6}-\d{3}_\d+)\.(overlay\.jpg|jpg|json)(\.part)?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is kept of one result.

    Attributes:
        image: (rows, columns, 3), uint8, BGR; must not be written to any more.
        score_map: (h, w), float32.
        region: Part of the frame that the map covers; None is the whole frame.
    """

    image: Image
    score_map: Array
    region: Region | None
    threshold: float
    score: float
    result_id: str
    seq: int
    created_at_ms: int

    @property
    def reference(self) -> str:
        """Path of the frame in the archive: ``YYYY-MM-DD/HHMMSS-mmm_seq.jpg``, UTC."""
        when = datetime.fromtimestamp(self.created_at_ms // 1000, tz=timezone.utc)
        return f"{when:%Y-%m-%d/%H%M%S}-{self.created_at_ms % 1000:03d}_{self.seq}.jpg"


class Archive:
    """Writes snapshots in a thread of its own, so that a slow disk never holds up inspection.

    Order of calls: enter, ``submit``, exit. Nothing that the disk does raises: what is not kept is counted.
    Snapshots submitted = ``written`` + ``waiting`` + the sum of ``dropped``.

    Args:
        directory: Created when needed. Files in it that are not the archive's are neither counted nor removed.
        max_mib: Size of all snapshots together; the oldest go first.
    """

    def __init__(self, directory: Path, max_mib: float) -> None:
        self._directory = directory
        self._max_bytes = int(max_mib * _MIB)
        self._size_bytes: int | None = None
        self._queue: queue.Queue[Snapshot | None] = queue.Queue(_WAITING_AT_MOST)
        self._lock = threading.Lock()
        self._closed = False
        self._submitted = 0
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._write_all, name="archive", daemon=True)

    @property
    def written(self) -> int:
        """Snapshots written since the start."""
        return self._written

    @property
    def dropped(self) -> dict[str, int]:
        """Snapshots not kept, by reason: archive busy, closed, disk full, larger than the archive, write failed."""
        with self._lock:
            return dict(self._dropped)

    @property
    def waiting(self) -> int:
        """Snapshots neither written nor dropped yet; after exit 0, or 1 if the disk hangs."""
        with self._lock:
            return self._submitted - self._written - sum(self._dropped.values())

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what waits, for a second at most; the rest is dropped as ``closed``."""
        deadline_s = time.monotonic() + _FLUSH_TIMEOUT_S
        with self._lock:
            self._closed = True
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=_FLUSH_TIMEOUT_S)
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._thread.is_alive():
            self._drop_waiting()
            self._queue.put_nowait(None)

    def submit(self, snapshot: Snapshot) -> str | None:
        """Hand over a snapshot; never waits.

        Returns:
            Path of the frame below the directory, which may still fail to be written; None if it is dropped at once.
        """
        with self._lock:
            self._submitted += 1
            if self._closed:
                self._dropped["closed"] += 1
                return None
            try:
                self._queue.put_nowait(snapshot)
            except queue.Full:
                self._dropped["archive busy"] += 1
                return None
        return snapshot.reference

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                if self._queue.get_nowait() is not None:
                    with self._lock:
                        self._dropped["closed"] += 1

    def _write_all(self) -> None:
        while (snapshot := self._queue.get()) is not None:
            try:
                reason = self._reason_not_to_keep(snapshot)
            except (OSError, cv2.error, ShiftwatchError) as error:
                reason = "disk full" if _is_disk_full(error) else "write failed"
                self._report(f"{reason}: {error}")
            with self._lock:
                if reason is None:
                    self._written += 1
                else:
                    self._dropped[reason] += 1

    def _reason_not_to_keep(self, snapshot: Snapshot) -> str | None:
        files = _encoded(snapshot)
        size_bytes = sum(len(content) for content in files.values())
        if size_bytes > self._max_bytes:
            self._report(f"a snapshot of {size_bytes} bytes is larger than the archive may be ({self._max_bytes})")
            return "larger than the archive"
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._size_bytes is None or self._size_bytes + size_bytes > self._max_bytes:
            self._size_bytes = _pruned(self._directory, int(_PRUNED_SHARE * self._max_bytes) - size_bytes)
        if not _has_room(self._directory, size_bytes):
            self._report(f"disk full: {self._directory}")
            return "disk full"
        _write({self._directory / name: content for name, content in files.items()})
        self._size_bytes += size_bytes
        self._report(None)
        return None

    def _report(self, trouble: str | None) -> None:
        """Log once when snapshots begin to get lost, and once when they are kept again."""
        if trouble is not None and self._trouble is None:
            _log.warning("archive keeps no pictures for now: %s", trouble)
        elif trouble is None and self._trouble is not None:
            _log.info("archive keeps pictures again; before: %s", self._trouble)
        self._trouble = trouble


def _encoded(snapshot: Snapshot) -> dict[str, bytes]:
    caption = Caption(snapshot.score, snapshot.threshold, snapshot.created_at_ms)
    heat = overlay(snapshot.image, snapshot.region, snapshot.score_map, snapshot.threshold)
    frame_name = snapshot.reference
    overlay_name = frame_name.replace(".jpg", ".overlay.jpg")
    numbers = {
        "resultId": snapshot.result_id,
        "seq": snapshot.seq,
        "creationTime": snapshot.created_at_ms,
        "score": snapshot.score if math.isfinite(snapshot.score) else None,
        "threshold": snapshot.threshold,
        "region": None if snapshot.region is None else asdict(snapshot.region),
        "frame": Path(frame_name).name,
        "overlay": Path(overlay_name).name,
    }
    return {
        frame_name: _as_jpeg(snapshot.image),
        overlay_name: _as_jpeg(captioned(heat, caption)),
        frame_name.replace(".jpg", ".json"): json.dumps(numbers, indent=1).encode(),
    }


def _as_jpeg(image: Image) -> bytes:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def _write(files: dict[Path, bytes]) -> None:
    """All files or none. Without fsync: a power cut may cost the last pictures, a slow card must not cost more."""
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _part_of(path).write_bytes(content)
            _part_of(path).replace(path)
    except OSError:
        for path in files:
            with contextlib.suppress(OSError):
                _part_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        raise


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _pruned(directory: Path, max_bytes: int) -> int:
    """Remove the oldest snapshots until the rest is no larger than ``max_bytes``; returns the size of the rest."""
    snapshots: dict[tuple[str, str], list[Path]] = {}
    for path in directory.glob("*/*"):
        own = _OWN_FILE.fullmatch(path.name)
        if own and _DAY.fullmatch(path.parent.name):
            snapshots.setdefault((path.parent.name, own[1]), []).append(path)
    sizes = {key: sum(path.stat().st_size for path in paths) for key, paths in snapshots.items()}
    rest_bytes = sum(sizes.values())
    for key in sorted(snapshots):
        if rest_bytes <= max_bytes:
            break
        for path in snapshots[key]:
            path.unlink(missing_ok=True)
        rest_bytes -= sizes[key]
        with contextlib.suppress(OSError):  # Not empty: the day has more.
            snapshots[key][0].parent.rmdir()
    return rest_bytes


def _has_room(directory: Path, size_bytes: int) -> bool:
    disk = shutil.disk_usage(directory)
    return disk.free - size_bytes >= min(_KEEP_FREE_BYTES, _KEEP_FREE_SHARE * disk.total)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
