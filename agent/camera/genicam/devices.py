"""Which of the cameras that answer is the configured one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Sequence


class DeviceInfo(NamedTuple):
    """A camera as it introduces itself; what it does not say is empty."""

    id: str
    serial: str = ""
    vendor: str = ""
    model: str = ""
    address: str = ""
    protocol: str = ""

    @property
    def text(self) -> str:
        """For people: ``Basler acA1300 GX0123 at 192.168.1.7``."""
        name = " ".join(filter(None, (self.vendor, self.model, self.serial or self.id)))
        return f"{name} at {self.address}" if self.address else name


def chosen(devices: Sequence[DeviceInfo], name: str) -> DeviceInfo:
    """The camera with this serial number, identity or address; with an empty name the only one.

    Raises:
        CameraError: There is none, or there are several.
    """
    found = [each for each in devices if not name or name in {each.serial, each.id, each.address}]
    if len(found) == 1:
        return found[0]
    seen = ", ".join(each.text for each in devices) or "none"
    if not found:
        raise CameraError(
            what=f"no GenICam camera {name}".rstrip() + f" answers; there are: {seen}",
            remedy="check its power, its cable and its address; shiftwatch-agent doctor looks for cameras",
        )
    serials = ", ".join(each.serial or each.id for each in found)
    raise CameraError(
        what=f"{len(found)} GenICam cameras answer: {seen}",
        remedy=f"name one of them by its serial number in camera.source: {serials}",
    )
