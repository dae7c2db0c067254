"""What agent and learning process tell each other: JSON and bytes one way, a line of JSON the other."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

Told: TypeAlias = dict[str, Any]

_LENGTHS = struct.Struct(">II")


class Message(NamedTuple):
    """To the learning process.

    Attributes:
        header: With ``kind``.
        content: A network input, where there is one.
    """

    header: Told
    content: bytes = b""

    @property
    def image(self) -> Image:
        """The network input."""
        rows, columns, channels = self.header["shape"]
        return np.frombuffer(self.content, np.uint8).reshape(rows, columns, channels)


def packed(message: Message) -> bytes:
    """As it goes through the pipe."""
    header = json.dumps(message.header).encode()
    return _LENGTHS.pack(len(header), len(message.content)) + header + message.content


def received(pipe: BinaryIO) -> Message | None:
    """The next message; None when there will be none."""
    lengths = pipe.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_bytes, content_bytes = _LENGTHS.unpack(lengths)
    header, content = pipe.read(header_bytes), pipe.read(content_bytes)
    if len(header) < header_bytes or len(content) < content_bytes:
        return None
    return Message(json.loads(header), content)
