"""Finds GenICam cameras on the network and at USB, and what keeps their frames from arriving whole."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.camera.genicam.aravis_library import aravis
from agent.doctor.finding import Finding, ok
from agent.doctor.system import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.camera.genicam.devices import DeviceInfo

_NAME = "GenICam cameras"
_ENOUGH_BYTES = 8 * 1024 * 1024  # two frames of a camera of 4 megapixels: what comes while a process is not scheduled
_RAISE = f"sudo sysctl -w net.core.rmem_max={4 * _ENOUGH_BYTES}, and the same line in /etc/sysctl.d/"
PACKETS_REMEDY = (
    f"give the network a larger buffer ({_RAISE}); set camera.packet_bytes to the MTU of the whole way, 1500 or 9000; "
    "lower camera.frames_per_s; keep other traffic off this network"
)


class Route(NamedTuple):
    """A network that this device is in.

    Attributes:
        interface: Its name.
        network: Its addresses.
    """

    interface: str
    network: ipaddress.IPv4Network


def genicam_cameras(root: Path = Path("/")) -> Iterator[Finding]:
    """One finding for each camera that answers, and what this device lacks for those on the network."""
    try:
        library = aravis()
    except OSError:
        yield ok(_NAME, "not looked for: Aravis is not installed (sudo apt install libaravis-0.8-0)")
        return
    devices = library.devices()
    yield from findings(devices, routes(root), text_of(root / "proc/sys/net/core/rmem_max"), root)


def findings(devices: Sequence[DeviceInfo], known: Sequence[Route], rmem_max: str, root: Path) -> Iterator[Finding]:
    """What there is to say about these cameras.

    Args:
        devices: Those that answer.
        known: The networks of this device.
        rmem_max: The largest buffer of a socket, bytes; empty if it is not known.
        root: Where ``sys`` is.
    """
    if not devices:
        yield ok(_NAME, "none answers, by GigE Vision or USB3 Vision")
    for device in devices:
        text = f"{device.text}, {device.protocol}: camera.source: genicam:{device.serial or device.id}"
        yield _address_finding(device, known, text, root) if device.address else ok(_NAME, text)
    if any(device.address for device in devices) and rmem_max.isdecimal() and int(rmem_max) < _ENOUGH_BYTES:
        what = f"the network's buffer may have {int(rmem_max) // 1024} KiB at most: packets of a frame can get lost"
        yield Finding("network buffer", "warning", what, _RAISE)


def routes(root: Path = Path("/")) -> list[Route]:
    """The IPv4 networks that this device is in, the loopback among them."""
    found = [Route("lo", ipaddress.IPv4Network("127.0.0.0/8"))]
    for line in text_of(root / "proc/net/route").splitlines()[1:]:
        fields = line.split()
        address, gateway, mask = (_address(fields[index]) for index in (1, 2, 7))
        if gateway == "0.0.0.0" != mask:  # noqa: S104 - no gateway: the network is at this interface
            found.append(Route(fields[0], ipaddress.IPv4Network(f"{address}/{mask}")))
    return found


def _address(text: str) -> str:
    return socket.inet_ntoa(struct.pack("<I", int(text, 16)))


def _address_finding(device: DeviceInfo, known: Sequence[Route], text: str, root: Path) -> Finding:
    address = ipaddress.IPv4Address(device.address)
    route = next((each for each in known if address in each.network), None)
    if route is None:
        networks = ", ".join(f"{each.network} at {each.interface}" for each in known)
        return Finding(
            _NAME,
            "fault",
            f"{text}; its address is in no network of this device: {networks}",
            "give the interface, or the camera, an address such that both are in one network (arv-tool-0.8 network)",
        )
    mtu = text_of(root / "sys/class/net" / route.interface / "mtu")
    return ok(_NAME, f"{text}; at {route.interface}, MTU {mtu or 'unknown'}")
