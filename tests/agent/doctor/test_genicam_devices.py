"""What the doctor says of GenICam cameras, of networks made by hand and of an emulated camera."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from agent.camera.genicam.devices import DeviceInfo
from agent.doctor import genicam_devices
from agent.doctor.camera_probe import camera
from agent.doctor.genicam_devices import Route, findings, genicam_cameras, routes
from tests.support.genicam_cameras import GigeCamera, only_gige_camera
from tests.support.stations import closed_port, write_config

if TYPE_CHECKING:
    from pathlib import Path

GIGE = DeviceInfo("Basler-1", "S1", "Basler", "ace", "192.168.7.20", "GigEVision")
USB = DeviceInfo("FLIR-2", "S2", "FLIR", "Blackfly", "", "USB3Vision")
THERE = [Route("eth1", ipaddress.IPv4Network("192.168.7.0/24"))]
ELSEWHERE = [Route("eth0", ipaddress.IPv4Network("10.0.0.0/8"))]
LARGE, SMALL = "33554432", "212992"


def test_cameras_that_can_be_used_are_named_with_what_to_configure(tmp_path: Path) -> None:
    mtu = tmp_path / "sys/class/net/eth1/mtu"
    mtu.parent.mkdir(parents=True)
    mtu.write_text("9000\n")
    found = list(findings([GIGE, USB], THERE, LARGE, tmp_path))
    assert [each.level for each in found] == ["ok", "ok"]
    assert found[0].found == ("Basler ace S1 at 192.168.7.20, GigEVision: camera.source: genicam:S1; at eth1, MTU 9000")
    assert found[1].found == "FLIR Blackfly S2, USB3Vision: camera.source: genicam:S2"


def test_an_address_in_no_network_of_this_device_is_a_fault(tmp_path: Path) -> None:
    (found,) = findings([GIGE], ELSEWHERE, LARGE, tmp_path)
    assert found.level == "fault"
    assert found.found.endswith("its address is in no network of this device: 10.0.0.0/8 at eth0")


@pytest.mark.parametrize(("devices", "is_said"), [([GIGE], True), ([USB], False), ([], False)])
def test_a_small_buffer_matters_to_cameras_on_the_network(
    devices: list[DeviceInfo],
    is_said: bool,  # noqa: FBT001 - a table
    tmp_path: Path,
) -> None:
    said = [each for each in findings(devices, THERE, SMALL, tmp_path) if each.name == "network buffer"]
    assert bool(said) is is_said
    assert all("208 KiB" in each.found and "sysctl" in each.remedy for each in said)


def test_networks_are_those_at_an_interface_and_no_default_route(tmp_path: Path) -> None:
    table = tmp_path / "proc/net/route"
    table.parent.mkdir(parents=True)
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "wlan0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth1\t0007A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert [str(each.network) for each in routes(tmp_path)] == ["127.0.0.0/8", "192.168.7.0/24"]


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError

    monkeypatch.setattr(genicam_devices, "aravis", absent)
    (found,) = genicam_cameras()
    assert (found.level, "apt install libaravis-0.8-0" in found.found) == ("ok", True)


@pytest.mark.slow
def test_an_emulated_camera_is_found_and_its_lost_packets_are_a_fault(bundle: Path, tmp_path: Path) -> None:
    with only_gige_camera(), GigeCamera("SW20", lost_packets=2) as emulated:
        assert any("genicam:SW20; at lo" in each.found for each in genicam_cameras())
        config = write_config(tmp_path, bundle, emulated.source, closed_port(), camera={"packet_bytes": 1400})
        found = {each.name: each for each in camera(str(config))}
    assert found["camera"].level == "ok", found
    assert "512x512 pixels" in found["camera"].found
    assert found["camera packets"].level == "fault"
    assert "packets are lost on the way" in found["camera packets"].found
