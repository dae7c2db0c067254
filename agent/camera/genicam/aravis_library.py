"""Aravis, the free library for GigE Vision and USB3 Vision, called through ctypes: it has no wheels."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from agent.camera.genicam.devices import DeviceInfo
from agent.camera.genicam.features import GenicamError

_LIBRARY = "libaravis-0.8.so.0"
_GLIB = "libgobject-2.0.so.0"
_VERSION_REGISTER = 0


class Aravis:
    """The library; see https://aravisproject.github.io/docs/aravis-0.8/ for its functions.

    Raises:
        OSError: It is not installed.
    """

    def __init__(self) -> None:
        library, self._glib = ctypes.CDLL(_LIBRARY), ctypes.CDLL(_GLIB)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._glib.g_object_unref.argtypes = self._glib.g_error_free.argtypes = [c_void_p]
        self._glib.g_object_unref.restype = self._glib.g_error_free.restype = None

    def __call__(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - as C has it
        """Call a function without its prefix ``arv_``; GenicamError if it reports an error."""
        function = getattr(self._library, f"arv_{name}")
        if not function.argtypes or function.argtypes[-1] is not _ERROR:
            return function(*arguments)
        error = POINTER(_Error)()
        result = function(*arguments, byref(error))
        if error:
            text = error.contents.message.decode(errors="replace")
            self._glib.g_error_free(error)
            raise GenicamError(text)
        return result

    def release(self, thing: int | None) -> None:
        """Give up a camera, a stream or a buffer."""
        if thing:
            self._glib.g_object_unref(thing)

    def devices(self) -> list[DeviceInfo]:
        """All cameras that answer; asking takes about a second."""
        self("update_device_list")
        keys = ("id", "serial_nbr", "vendor", "model", "address", "protocol")
        return [
            DeviceInfo(*((self(f"get_device_{key}", index) or b"").decode(errors="replace") for key in keys))
            for index in range(self("get_n_devices"))
        ]


@cache
def aravis() -> Aravis:
    """The library, loaded once."""
    return Aravis()


class _Error(ctypes.Structure):
    """GError."""

    _fields_ = (("domain", c_uint32), ("code", c_int), ("message", c_char_p))


_ERROR = POINTER(POINTER(_Error))
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "arv_update_device_list": (None, []),
    "arv_get_n_devices": (c_uint, []),
    "arv_get_device_id": (c_char_p, [c_uint]),
    "arv_get_device_serial_nbr": (c_char_p, [c_uint]),
    "arv_get_device_vendor": (c_char_p, [c_uint]),
    "arv_get_device_model": (c_char_p, [c_uint]),
    "arv_get_device_address": (c_char_p, [c_uint]),
    "arv_get_device_protocol": (c_char_p, [c_uint]),
    "arv_camera_new": (c_void_p, [c_char_p, _ERROR]),
    "arv_camera_get_device": (c_void_p, [c_void_p]),
    "arv_camera_is_gv_device": (c_int, [c_void_p]),
    "arv_camera_gv_auto_packet_size": (c_uint, [c_void_p, _ERROR]),
    "arv_camera_gv_set_packet_size": (None, [c_void_p, c_int, _ERROR]),
    "arv_camera_gv_get_packet_size": (c_uint, [c_void_p, _ERROR]),
    "arv_camera_get_payload": (c_uint, [c_void_p, _ERROR]),
    "arv_camera_create_stream": (c_void_p, [c_void_p, c_void_p, c_void_p, _ERROR]),
    "arv_camera_start_acquisition": (None, [c_void_p, _ERROR]),
    "arv_camera_stop_acquisition": (None, [c_void_p, _ERROR]),
    "arv_camera_is_feature_available": (c_int, [c_void_p, c_char_p, _ERROR]),
    "arv_camera_execute_command": (None, [c_void_p, c_char_p, _ERROR]),
    "arv_device_get_feature": (c_void_p, [c_void_p, c_char_p]),
    "arv_device_read_register": (c_int, [c_void_p, c_uint64, POINTER(c_uint32), _ERROR]),
    "arv_gc_feature_node_get_value_as_string": (c_char_p, [c_void_p, _ERROR]),
    "arv_gc_feature_node_set_value_from_string": (None, [c_void_p, c_char_p, _ERROR]),
    "arv_stream_push_buffer": (None, [c_void_p, c_void_p]),
    "arv_stream_timeout_pop_buffer": (c_void_p, [c_void_p, c_uint64]),
    "arv_buffer_new_allocate": (c_void_p, [c_size_t]),
    "arv_buffer_get_status": (c_int, [c_void_p]),
    "arv_buffer_get_data": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "arv_buffer_get_frame_id": (c_uint64, [c_void_p]),
    "arv_buffer_get_timestamp": (c_uint64, [c_void_p]),
    "arv_buffer_get_image_pixel_format": (c_uint32, [c_void_p]),
    "arv_buffer_get_image_width": (c_int, [c_void_p]),
    "arv_buffer_get_image_height": (c_int, [c_void_p]),
}
