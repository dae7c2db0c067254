"""Cameras through any GenTL producer, a file of type ``.cti`` that comes with the camera or its frame grabber."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.camera.genicam.devices import DeviceInfo, chosen
from agent.camera.genicam.features import GenicamError
from agent.camera.genicam.genapi import NodeFeatures, one_line
from agent.camera.genicam.source import Received
from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Sequence

from genicam.genapi import GenericException as GenapiException
from genicam.gentl import GenericException as GentlException
from harvesters.core import Harvester

_FOLDERS = "GENICAM_GENTL64_PATH"
_FAILURES = (GentlException, GenapiException, OSError, ValueError, RuntimeError)
_METHODS = ("get_access_mode", "to_string", "from_string", "execute")


class GentlDriver:
    """See Driver.

    Args:
        name: Path of the producer, ``#`` and the serial number or identity of the camera; without a path the producers
            in the folders of `GENICAM_GENTL64_PATH`, without a number the only camera.
    """

    def __init__(self, name: str) -> None:
        path, _hash, camera = name.rpartition("#") if "#" in name or ".cti" not in name else (name, "", "")
        self._producers = [Path(path)] if path else _installed_producers()
        self._camera_name = camera
        self._harvester: Any = None
        self._camera: Any = None
        self._buffer: Any = None

    @property
    def features(self) -> NodeFeatures:
        """See Driver."""
        nodes = self._camera.remote_device.node_map
        return NodeFeatures(
            lambda name: nodes.get_node(name) if nodes.has_node(name) else None, GenapiException, _METHODS
        )

    def open(self) -> None:
        """See Driver."""
        self._harvester = harvester = Harvester()
        for path in self._producers:
            if not path.is_file():
                raise CameraError(what=f"no GenTL producer at {path}", remedy="give the path of its .cti file")
            self._call(harvester.add_file, str(path))
        self._call(harvester.update)
        found = harvester.device_info_list
        infos = [_info(each) for each in found]
        self._camera = self._call(harvester.create, infos.index(chosen(infos, self._camera_name)))

    def start(self, buffers: int, packet_bytes: int | None) -> Sequence[str]:
        """See Driver."""
        self._camera.num_buffers = max(buffers, self._camera.min_num_buffers)
        self._call(self._camera.start)
        return [] if packet_bytes is None else ["packet_bytes: the producer decides about it"]

    def receive(self, timeout_s: float) -> Received | None:
        """See Driver. Harvesters throws incomplete frames away: their numbers are missing."""
        self._give_back()
        self._buffer = buffer = self._call(self._camera.try_fetch, timeout=timeout_s)
        if buffer is None:
            return None
        module = buffer.module
        image = next((each for each in buffer.payload.components if each.data is not None and each.data.size), None)
        if image is None:
            return Received(None, "", 0, 0, module.frame_id, 0)
        time_ns = 0
        with suppress(*_FAILURES):  # some cameras have no clock
            time_ns = buffer.timestamp_ns or 0
        data = np.ascontiguousarray(image.data).view(np.uint8)
        return Received(data, image.data_format, image.height, image.width, module.frame_id, time_ns)

    def check(self) -> None:
        """See Driver."""
        nodes = self._camera.remote_device.node_map
        self._call(nodes.invalidate_nodes)
        self.features.read("Width")

    def close(self) -> None:
        """See Driver."""
        with suppress(*_FAILURES):
            self._give_back()
        for thing, method in ((self._camera, "destroy"), (self._harvester, "reset")):
            if thing is not None:
                with suppress(*_FAILURES):
                    getattr(thing, method)()
        self._camera = self._harvester = None

    def _give_back(self) -> None:
        if self._buffer is not None:
            self._buffer.queue()
            self._buffer = None

    @staticmethod
    def _call(function: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - of the library
        try:
            return function(*arguments, **named)
        except _FAILURES as error:
            raise GenicamError(one_line(error)) from error


def _installed_producers() -> list[Path]:
    folders = [Path(each) for each in os.environ.get(_FOLDERS, "").split(os.pathsep) if each]
    found = sorted(path for folder in folders for path in folder.glob("*.cti"))
    if not found:
        raise CameraError(
            what=f"no GenTL producer: {_FOLDERS} names no folder with a .cti file",
            remedy="install the producer of the camera's vendor, or give its path: gentl:/path/to/producer.cti",
        )
    return found


def _info(device: Any) -> DeviceInfo:  # noqa: ANN401 - of the library
    return DeviceInfo(device.id_, device.serial_number or "", device.vendor or "", device.model or "")
