"""GigE Vision and USB3 Vision cameras through Aravis."""

from __future__ import annotations

from contextlib import suppress
from ctypes import POINTER, byref, c_size_t, c_uint8, c_uint32, cast
from typing import TYPE_CHECKING

import numpy as np

from agent.camera.genicam.aravis_library import aravis
from agent.camera.genicam.devices import chosen
from agent.camera.genicam.features import GenicamError
from agent.camera.genicam.pixel_formats import name_of
from agent.camera.genicam.source import Received

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.camera.genicam.aravis_library import Aravis

_SUCCESS = 0
_CONTROL_REGISTER = 0x0A00  # of GigE Vision; zero once nobody has control
_FIRST_REGISTER = 0


class AravisFeatures:
    """See Features."""

    def __init__(self, library: Aravis, camera: int) -> None:
        self._library = library
        self._camera = camera
        self._device = library("camera_get_device", camera)

    def has(self, name: str) -> bool:
        """See Features."""
        return bool(self._library("camera_is_feature_available", self._camera, name.encode()))

    def read(self, name: str) -> str:
        """See Features."""
        value: bytes | None = self._library("gc_feature_node_get_value_as_string", self._node(name))
        return (value or b"").decode(errors="replace")

    def write(self, name: str, value: str) -> None:
        """See Features."""
        self._library("gc_feature_node_set_value_from_string", self._node(name), value.encode())

    def execute(self, name: str) -> None:
        """See Features."""
        self._library("camera_execute_command", self._camera, name.encode())

    def _node(self, name: str) -> int:
        node: int | None = self._library("device_get_feature", self._device, name.encode())
        if node is None:
            text = f"it has no feature {name}"
            raise GenicamError(text)
        return node


class AravisDriver:
    """See Driver.

    Args:
        name: Serial number, identity or address of the camera; empty for the only one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._library = aravis()
        self._camera: int | None = None
        self._stream: int | None = None
        self._buffer: int | None = None
        self._is_gige = False

    @property
    def features(self) -> AravisFeatures:
        """See Driver."""
        assert self._camera is not None  # noqa: S101 - after open
        return AravisFeatures(self._library, self._camera)

    def open(self) -> None:
        """See Driver."""
        found = chosen(self._library.devices(), self._name)
        self._camera = self._library("camera_new", found.id.encode())
        self._is_gige = bool(self._library("camera_is_gv_device", self._camera))

    def start(self, buffers: int, packet_bytes: int | None) -> Sequence[str]:
        """See Driver."""
        library, camera = self._library, self._camera
        refused = self._set_packets(packet_bytes) if self._is_gige else []
        self._stream = library("camera_create_stream", camera, None, None)
        payload_bytes = library("camera_get_payload", camera)
        for _ in range(buffers):
            library("stream_push_buffer", self._stream, library("buffer_new_allocate", payload_bytes))
        library("camera_start_acquisition", camera)
        return refused

    def receive(self, timeout_s: float) -> Received | None:
        """See Driver."""
        library = self._library
        if self._buffer is not None:
            library("stream_push_buffer", self._stream, self._buffer)
        self._buffer = buffer = library("stream_timeout_pop_buffer", self._stream, round(timeout_s * 1e6))
        if buffer is None:
            return None
        size = c_size_t()
        start = library("buffer_get_data", buffer, byref(size))
        is_complete = library("buffer_get_status", buffer) == _SUCCESS and start is not None
        data = np.ctypeslib.as_array(cast(start, POINTER(c_uint8)), (size.value,)) if is_complete else None
        return Received(
            data,
            name_of(library("buffer_get_image_pixel_format", buffer)) if is_complete else "",
            library("buffer_get_image_height", buffer) if is_complete else 0,
            library("buffer_get_image_width", buffer) if is_complete else 0,
            library("buffer_get_frame_id", buffer),
            library("buffer_get_timestamp", buffer),
        )

    def check(self) -> None:
        """See Driver."""
        value = c_uint32()
        device = self._library("camera_get_device", self._camera)
        register = _CONTROL_REGISTER if self._is_gige else _FIRST_REGISTER
        self._library("device_read_register", device, register, byref(value))
        if self._is_gige and not value.value:
            text = "it has been given up: it did not hear from here for too long, or it was started again"
            raise GenicamError(text)

    def close(self) -> None:
        """See Driver."""
        library = self._library
        if self._stream is not None and self._camera is not None:
            with suppress(GenicamError):  # it is gone
                library("camera_stop_acquisition", self._camera)
        for thing in (self._buffer, self._stream, self._camera):
            library.release(thing)
        self._buffer = self._stream = self._camera = None

    def _set_packets(self, packet_bytes: int | None) -> list[str]:
        if packet_bytes is None:
            self._library("camera_gv_auto_packet_size", self._camera)
            return []
        self._library("camera_gv_set_packet_size", self._camera, packet_bytes)
        got = self._library("camera_gv_get_packet_size", self._camera)
        return [] if got == packet_bytes else [f"packet_bytes: asked for {packet_bytes}, got {got}"]
