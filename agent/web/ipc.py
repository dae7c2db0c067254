"""What the agent and the page's process exchange: messages over a socket, a frame through shared memory.

The memory has room for one frame and its score map, and **belongs to one process at a time**: to the agent, which
writes into it once the page's process has asked for a frame, then to that process, until it asks for the next. Messages
are system calls, which order the accesses to memory on every architecture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping, Sequence

    from agent.logs import LogFormat
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image

_IMAGE_BYTES = 128 * 1024 * 1024
_MAP_BYTES = 16 * 1024 * 1024
MEMORY_BYTES = _IMAGE_BYTES + _MAP_BYTES

PageRequest: TypeAlias = Literal["nothing", "state", "picture"]
"""What the page's process asks for; ``nothing`` is a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOrder:
    """What the page's process serves.

    Attributes:
        names: Host names that browsers may use, besides addresses, ``localhost`` and the host's own name.
        token: Required for changes; None leaves the page read-only.
        state_dir: Where the control socket and the archive are.
        has_archive: Whether images are kept.
        shifts: Name of each shift -> its start, minutes after midnight.
        station: Topic root.
        version: Version of shiftwatch.
        log_level: Name of the lowest level that is logged.
        log_format: As configured.
    """

    names: Sequence[str]
    token: str | None
    state_dir: str
    has_archive: bool
    shifts: Mapping[str, int]
    station: str
    version: str
    log_level: str
    log_format: LogFormat


class PageReport(NamedTuple):
    """What the agent sends.

    Attributes:
        content: For ``results``, a list of what is published as ``result``; for ``state``, an object; for ``picture``,
            the fields of `ShownFrame`.
    """

    kind: Literal["results", "state", "picture"]
    content: Any

    def as_bytes(self) -> bytes:
        """One message: a JSON list."""
        return json.dumps(self).encode()


class ShownFrame(NamedTuple):
    """The frame in the shared memory.

    Attributes:
        result_id: Result of the part shown; `between-SEQ` if the frame has no part.
        captured_at_ms: Wall clock, ms since 1970, UTC.
        map_shape: Shape of the score map; None if the frame was not scored.
        grid: Rows and columns of the features: where the map lies in the region.
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
    """The memory of `MEMORY_BYTES`, in either process."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def write(self, image: Image, score_map: Array | None) -> bool:
        """Copy both; False if there is no room."""
        if image.nbytes > _IMAGE_BYTES or (score_map is not None and score_map.size * 4 > _MAP_BYTES):
            return False
        np.copyto(self.image(*image.shape[:2]), image)
        if score_map is not None:
            np.copyto(self.score_map(*score_map.shape), score_map)
        return True

    def image(self, rows: int, columns: int) -> Image:
        """(rows, columns, 3), uint8, BGR: the memory itself."""
        image: Image = np.ndarray((rows, columns, 3), np.uint8, self._memory)
        return image

    def score_map(self, rows: int, columns: int) -> Array:
        """(rows, columns), float32: the memory itself."""
        score_map: Array = np.ndarray((rows, columns), np.float32, self._memory, _IMAGE_BYTES)
        return score_map
