"""What the agent and the recalibration worker exchange: an order, parts, and reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from agent.child_process import LONGEST_MESSAGE_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from calibration.imaging.preprocess import Image
    from calibration.update.base_network import OtherBackbone
    from calibration.update.refit import Mode

WorkerReport: TypeAlias = dict[str, Any]
"""JSON: ``kind`` (``ready``, ``collected``, ``progress``, ``fitted``, ``shadowed``, ``failed``) and what belongs to it.

``fitted`` and ``shadowed`` bring figures, by the names that `cmd/ack` gives them.
"""

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What the worker does.

    Attributes:
        bundle: Folder of the active bundle.
        identity: Its identity.
        target: Folder of the new bundle.
        parts_folder: Where it keeps parts.
        mode: See `RefitPlan`, as for the next four.
        parts: The most parts that are collected.
        expected: Number of parts that will come; 0 if it is not known.
        min_detection: See `calibration.update.acceptance.acceptance_failures`, as for the next one.
        threshold: The active threshold.
        defects: Result id and path of images that are labelled as defects.
        good: The same of images that were rejected and are labelled as good.
    """

    bundle: str
    identity: str
    target: str
    parts_folder: str
    mode: Mode
    backbone: OtherBackbone | None
    old_weight: float
    false_reject_rate: float | None
    sequential: bool
    parts: int
    expected: int
    min_detection: float
    least_detection: float
    threshold: float
    defects: Sequence[tuple[str, str]]
    good: Sequence[tuple[str, str]]


class Message(NamedTuple):
    """What the agent sends after the order.

    Attributes:
        header: JSON: ``kind`` (``part``, ``refit``); for a part also ``name``, ``shape``, ``notOk``.
        content: The network input of a part.
    """

    header: dict[str, Any]
    content: bytes = b""

    @property
    def image(self) -> Image:
        """The network input."""
        rows, columns, channels = self.header["shape"]
        return np.frombuffer(self.content, np.uint8).reshape(rows, columns, channels)


def send(message: Message, connection: socket.socket) -> None:
    """Send a message in pieces; waits while the other end has not read enough."""
    connection.sendall(json.dumps([message.header, len(message.content)]).encode())
    for start in range(0, len(message.content), _PIECE_BYTES):
        connection.sendall(message.content[start : start + _PIECE_BYTES])


def receive(connection: socket.socket) -> Message | None:
    """Wait for the next message; None if the other end has closed the connection."""
    first = connection.recv(LONGEST_MESSAGE_BYTES)
    if not first:
        return None
    header, left = json.loads(first)
    pieces = []
    while left > 0:
        pieces.append(connection.recv(_PIECE_BYTES))
        if not pieces[-1]:
            return None
        left -= len(pieces[-1])
    return Message(header, b"".join(pieces))
