"""The machine: processor, memory, temperature, clock, disk; on a Jetson power mode and clocks."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agent.doctor.finding import Finding, ok
from agent.doctor.system import said, text_of
from calibration.deployment.latency import processor_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.doctor.finding import Level

_KIB_PER_MIB = 1024
_LITTLE_MEMORY_MIB = 512
_HOT_C = 85.0
_LITTLE_DISK_GIB, _NO_DISK_GIB = 1.0, 0.1
# systemd's own measure of "synchronised": the kernel's bound of the clock's error is below 16 s.
_UNSYNCHRONISED_US = 16_000_000
_JETSON_GPU = re.compile(r"gpu$|g[abmpv]\d\d[a-z]$")


def machine() -> Iterator[Finding]:
    """Processor, memory, temperature, clock; and what only a Jetson has."""
    root = Path("/")
    yield processor_finding(os.getloadavg()[0], os.cpu_count() or 1)
    yield memory_finding((root / "proc/meminfo").read_text())
    yield temperature_finding(root)
    yield clock_finding(clock_error_us())
    yield from jetson_findings(root)


def processor_finding(load: float, cores: int) -> Finding:
    """What computes, and what it has to do already."""
    found = f"{processor_name()}, load {load:.1f}"
    if load > cores:
        remedy = "more waits for the processor than it has cores: see with `top` what else runs here"
        return Finding("processor", "warning", found, remedy, {"load": load})
    return ok("processor", found, load=load)


def memory_finding(meminfo: str) -> Finding:
    """From the text of ``/proc/meminfo``."""
    sizes = {key: int(kib) / _KIB_PER_MIB for key, kib in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    total_mib, available_mib = sizes["MemTotal"], sizes["MemAvailable"]
    found = f"{available_mib:,.0f} of {total_mib:,.0f} MiB available"
    if available_mib < _LITTLE_MEMORY_MIB:
        remedy = "the agent takes about 250 MiB with a small network: see with `top` what else runs here"
        return Finding("memory", "warning", found, remedy, {"available_mib": available_mib})
    return ok("memory", found, available_mib=available_mib)


def temperature_finding(root: Path) -> Finding:
    """The hottest of the kernel's thermal zones."""
    zones = {folder.name: _number(folder / "temp") for folder in (root / "sys/class/thermal").glob("thermal_zone*")}
    known = {name: milli / 1000 for name, milli in zones.items() if milli is not None}
    if not known:
        return ok("temperature", "this machine does not tell")
    hottest = max(known, key=lambda name: known[name])
    kind = text_of(root / "sys/class/thermal" / hottest / "type") or hottest
    found = f"{known[hottest]:.0f} °C ({kind})"
    if known[hottest] >= _HOT_C:
        remedy = "it slows down or switches off when it gets hotter: check fan, dust and the air around it"
        return Finding("temperature", "warning", found, remedy, {"celsius": known[hottest]})
    return ok("temperature", found, celsius=known[hottest])


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` of adjtimex(2); the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def clock_error_us() -> int | None:
    """The kernel's bound of the clock's error; None where it does not tell."""
    timex = _Timex()  # modes 0: reads, sets nothing
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return None if state < 0 else int(timex.maxerror)


def clock_finding(error_us: int | None) -> Finding:
    """Whether somebody keeps the clock right."""
    if error_us is None:
        return ok("clock", "this system does not tell whether it is synchronised")
    if error_us < _UNSYNCHRONISED_US:
        return ok("clock", "synchronised")
    remedy = "results would carry wrong times and TLS may fail: `timedatectl set-ntp true`, or install chrony"
    return Finding("clock", "warning", "not synchronised", remedy)


def disk_finding(folder: Path) -> Finding:
    """Room where a folder is, or will be; whether this user may write there."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gib = shutil.disk_usage(there).free / 2**30
    found = f"{free_gib:.1f} GiB free in {folder}"
    if not os.access(there, os.W_OK):
        remedy = "mend its owner or permissions; if the agent has a user of its own, ask as that: sudo -u USER"
        return Finding("disk", "fault", f"this user cannot write to {there}", remedy)
    if free_gib < _LITTLE_DISK_GIB:
        level: Level = "fault" if free_gib < _NO_DISK_GIB else "warning"
        return Finding("disk", level, found, "make room: records and pictures need it", {"free_gib": free_gib})
    return ok("disk", found, free_gib=free_gib)


def jetson_findings(root: Path) -> Iterator[Finding]:
    """Model, power mode and clocks of a Jetson; nothing on other machines."""
    release = text_of(root / "etc/nv_tegra_release")
    if not release:
        return
    number = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    linux = f"Jetson Linux {number[1]}.{number[2]}" if number else release.splitlines()[0]
    model = text_of(root / "proc/device-tree/model").strip("\0") or "Jetson"
    yield ok("Jetson", f"{model}, {linux}")
    mode = re.search(r"NV Power Mode: *(\S+)", said("nvpmodel", "-q") or "")
    yield ok("power mode", mode[1] if mode else "nvpmodel does not tell")
    yield ok("clocks", "; ".join(_clocks(root)) or "the kernel does not tell")


def _clocks(root: Path) -> Iterator[str]:
    for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        low, now, high = (_number(policy / f"scaling_{key}_freq") for key in ("min", "cur", "max"))
        yield _clock(f"CPU {policy.name.removeprefix('policy')}", low, now, high, unit_hz=1e3)
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        if _JETSON_GPU.search(device.name):
            low, now, high = (_number(device / f"{key}_freq") for key in ("min", "cur", "max"))
            yield _clock("GPU", low, now, high, unit_hz=1.0)


def _clock(name: str, low: int | None, now: int | None, high: int | None, *, unit_hz: float) -> str:
    if low is None or now is None or high is None:
        return f"{name} unknown"
    mhz = [round(frequency * unit_hz / 1e6) for frequency in (now, low, high)]
    return f"{name} {mhz[0]} MHz, {'pinned' if low == high else f'free from {mhz[1]} to {mhz[2]}'}"


def _number(file: Path) -> int | None:
    text = text_of(file)
    return int(text) if text.lstrip("-").isdecimal() else None
