"""What the agent and the page's process tell each other: messages over a socket, a picture through shared memory.

The memory has room for one picture and its score map, and **belongs to one process at a time**: to the agent, which
writes into it once the other has asked for a picture, then to the page's process, until it asks for the next. Messages
are system calls, which order the accesses to memory on every architecture.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.logs import LogFormat
    from agent.messages.records import Payload
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image

PICTURE_BYTES = 128 * 1024 * 1024
MAP_BYTES = 16 * 1024 * 1024
LONGEST_MESSAGE_BYTES = 64 * 1024

Kind: TypeAlias = Literal["results", "state", "picture"]
Asked: TypeAlias = Literal["nothing", "state", "picture"]
"""What the page's process wants; ``nothing`` is a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOrder:
    """What the page's process is to serve.

    Attributes:
        names: Under which browsers may ask, besides addresses, ``localhost`` and the host itself.
        token: For what changes something; None leaves the page read-only.
        state_dir: Where the control socket and the archive are.
        has_archive: Whether pictures are kept.
        station: Topic root.
        version: Of shiftwatch.
        log_level: Name of the lowest level that is logged.
        log_format: As configured.
    """

    names: Sequence[str]
    token: str | None
    state_dir: str
    has_archive: bool
    station: str
    version: str
    log_level: str
    log_format: LogFormat

    def as_bytes(self) -> bytes:
        """The first message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> PageOrder:
        """The opposite of ``as_bytes``."""
        return cls(**json.loads(message))


class PageReport(NamedTuple):
    """What the agent tells.

    Attributes:
        content: Of ``results``, a list of what is published as ``result``; of ``state``, an object; of ``picture``, the
            fields of `Shown`.
    """

    kind: Kind
    content: Any

    def as_bytes(self) -> bytes:
        """One message."""
        return json.dumps(self).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> PageReport:
        """The opposite of ``as_bytes``."""
        return cls(*json.loads(message))


def results_message(results: Sequence[str]) -> bytes:
    """`PageReport` of results that are JSON already."""
    return b'["results",[' + ",".join(results).encode() + b"]]"


class Shown(NamedTuple):
    """The picture that lies in the shared memory.

    Attributes:
        captured_at_ms: Wall clock, ms since 1970, UTC.
        map_shape: Of the score map; None where the frame was not scored.
        grid: Of the features: says where the map lies in the region.
        region: x, y, width, height of what the map covers; None is the whole frame.
    """

    result_id: str
    captured_at_ms: int
    rows: int
    columns: int
    map_shape: tuple[int, int] | None
    grid: tuple[int, int]
    region: tuple[int, int, int, int] | None
    threshold: float


class SharedImage:
    """The memory, in either process.

    Args:
        descriptor: Of `new_memory`; may be closed afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, PICTURE_BYTES + MAP_BYTES)

    def write(self, image: Image, score_map: Array | None) -> bool:
        """Copy both; whether there was room."""
        if image.nbytes > PICTURE_BYTES or (score_map is not None and score_map.size * 4 > MAP_BYTES):
            return False
        np.copyto(self.picture(*image.shape[:2]), image)
        if score_map is not None:
            np.copyto(self.score_map(*score_map.shape), score_map)
        return True

    def picture(self, rows: int, columns: int) -> Image:
        """(rows, columns, 3), uint8, BGR: the memory itself."""
        picture: Image = np.ndarray((rows, columns, 3), np.uint8, self._memory)
        return picture

    def score_map(self, rows: int, columns: int) -> Array:
        """(rows, columns), float32: the memory itself."""
        score_map: Array = np.ndarray((rows, columns), np.float32, self._memory, PICTURE_BYTES)
        return score_map

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def new_memory() -> int:
    """The descriptor of memory for a `SharedImage`; the caller closes it. Only what was written takes room.

    Raises:
        OSError: There is no room.
    """
    descriptor = os.memfd_create("shiftwatch-page")
    try:
        os.truncate(descriptor, PICTURE_BYTES + MAP_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def state_message(state: Payload) -> bytes:
    """`PageReport` of a state."""
    return PageReport("state", state).as_bytes()
