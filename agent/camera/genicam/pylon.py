"""Basler cameras through Basler's own library."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.camera.genicam.devices import DeviceInfo, chosen
from agent.camera.genicam.features import GenicamError
from agent.camera.genicam.genapi import NodeFeatures, one_line
from agent.camera.genicam.pixel_formats import name_of
from agent.camera.genicam.source import Received

if TYPE_CHECKING:
    from collections.abc import Sequence

from pypylon import genicam, pylon

_METHODS = ("GetAccessMode", "ToString", "FromString", "Execute")


class PylonDriver:
    """See Driver.

    Args:
        name: Serial number or address of the camera; empty for the only one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._camera: Any = None
        self._result: Any = None

    @property
    def features(self) -> NodeFeatures:
        """See Driver."""
        return NodeFeatures(self._camera.GetNodeMap().GetNode, genicam.GenericException, _METHODS)

    def open(self) -> None:
        """See Driver."""
        factory = pylon.TlFactory.GetInstance()
        found = self._call(factory.EnumerateDevices)
        infos = [_info(each) for each in found]
        device = found[infos.index(chosen(infos, self._name))]
        self._camera = pylon.InstantCamera(self._call(factory.CreateDevice, device))
        self._call(self._camera.Open)

    def start(self, buffers: int, packet_bytes: int | None) -> Sequence[str]:
        """See Driver."""
        refused = []
        if packet_bytes is not None:
            try:
                self.features.write("GevSCPSPacketSize", str(packet_bytes))
            except GenicamError as error:
                refused.append(f"packet_bytes: asked for {packet_bytes}, but {error}")
        self._camera.MaxNumBuffer.Value = buffers
        self._call(self._camera.StartGrabbing, pylon.GrabStrategy_OneByOne)
        return refused

    def receive(self, timeout_s: float) -> Received | None:
        """See Driver."""
        self._give_back()
        result = self._call(self._camera.RetrieveResult, round(timeout_s * 1000), pylon.TimeoutHandling_Return)
        if not result.IsValid():
            self.check()
            return None
        self._result = result
        data = np.frombuffer(result.GetBuffer(), np.uint8) if result.GrabSucceeded() else None
        return Received(
            data,
            name_of(result.GetPixelType()),
            result.GetHeight(),
            result.GetWidth(),
            result.GetBlockID(),
            result.GetTimeStamp(),
        )

    def check(self) -> None:
        """See Driver."""
        if self._camera.IsCameraDeviceRemoved():
            text = "it was removed"
            raise GenicamError(text)

    def close(self) -> None:
        """See Driver."""
        with suppress(genicam.GenericException):
            self._give_back()
            if self._camera is not None:
                self._camera.Close()
        self._camera = None

    def _give_back(self) -> None:
        if self._result is not None:
            self._result.Release()
            self._result = None

    @staticmethod
    def _call(function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - of the library
        try:
            return function(*arguments)
        except genicam.GenericException as error:
            raise GenicamError(one_line(error)) from error


def _info(device: Any) -> DeviceInfo:  # noqa: ANN401 - of the library
    address = device.GetIpAddress() if device.IsIpAddressAvailable() else ""
    return DeviceInfo(
        device.GetFullName(), device.GetSerialNumber(), device.GetVendorName(), device.GetModelName(), address
    )
