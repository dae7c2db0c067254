"""Checks processor, memory, temperature, clock and disk; on a Jetson also power mode and clock rates."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agent.doctor.finding import Finding, ok, warn_if
from agent.doctor.system import output_of, text_of
from calibration.deployment.latency import processor_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.doctor.finding import Level

_KIB_PER_MIB = 1024
_LITTLE_MEMORY_MIB = 512
_HOT_C = 85.0
_LITTLE_DISK_GIB, _NO_DISK_GIB = 1.0, 0.1
# As in systemd: a clock is synchronised if the kernel's bound on its error is below 16 s.
_UNSYNCHRONISED_US = 16_000_000
_JETSON_GPU = re.compile(r"gpu$|g[abmpv]\d\d[a-z]$")


def machine() -> Iterator[Finding]:
    """Check everything but the disk."""
    root = Path("/")
    yield processor_finding(os.getloadavg()[0], os.cpu_count() or 1)
    yield memory_finding((root / "proc/meminfo").read_text())
    yield temperature_finding(root)
    yield clock_finding(clock_error_us())
    yield from jetson_findings(root)


def processor_finding(load: float, cores: int) -> Finding:
    """Check whether the processor is overloaded."""
    remedy = "the load is higher than the number of cores: see with `top` which programs are busy"
    return warn_if(load > cores, "processor", f"{processor_name()}, load {load:.1f}", remedy, load=load)


def memory_finding(meminfo: str) -> Finding:
    """Check whether enough memory is available, from the text of ``/proc/meminfo``."""
    sizes = {key: int(kib) / _KIB_PER_MIB for key, kib in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    total_mib, available_mib = sizes["MemTotal"], sizes["MemAvailable"]
    found = f"{available_mib:,.0f} of {total_mib:,.0f} MiB available"
    remedy = "the agent needs about 250 MiB with a small network: see with `top` which programs use memory"
    return warn_if(available_mib < _LITTLE_MEMORY_MIB, "memory", found, remedy, available_mib=available_mib)


def temperature_finding(root: Path) -> Finding:
    """Check the hottest of the kernel's thermal zones."""
    zones = {folder.name: _number(folder / "temp") for folder in (root / "sys/class/thermal").glob("thermal_zone*")}
    known = {name: milli / 1000 for name, milli in zones.items() if milli is not None}
    if not known:
        return ok("temperature", "not reported by this machine")
    hottest = max(known, key=lambda name: known[name])
    kind = text_of(root / "sys/class/thermal" / hottest / "type") or hottest
    celsius = known[hottest]
    remedy = "a hotter device slows down or switches off: check its fan, dust and the surrounding air"
    return warn_if(celsius >= _HOT_C, "temperature", f"{celsius:.0f} °C ({kind})", remedy, celsius=celsius)


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` of adjtimex(2), with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def clock_error_us() -> int | None:
    """The kernel's bound on the clock's error; None if it is not known."""
    timex = _Timex()  # modes 0: read only
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    return None if state < 0 else int(timex.maxerror)


def clock_finding(error_us: int | None) -> Finding:
    """Check whether the clock is synchronised."""
    if error_us is None:
        return ok("clock", "this system does not report whether it is synchronised")
    if error_us < _UNSYNCHRONISED_US:
        return ok("clock", "synchronised")
    remedy = "results may get wrong times and TLS may fail: run `timedatectl set-ntp true`, or install chrony"
    return Finding("clock", "warning", "not synchronised", remedy)


def disk_finding(folder: Path) -> Finding:
    """Check free space, and whether this user may write, where a folder is or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))  # noqa: PTH110 - no error below a folder that this user may not enter
    free_gib = shutil.disk_usage(existing).free / 2**30
    found = f"{free_gib:.1f} GiB free in {folder}"
    if not os.access(existing, os.W_OK, effective_ids=True):
        remedy = "correct its owner or permissions; if the agent has its own user, run the doctor as that: sudo -u USER"
        return Finding("disk", "fault", f"this user cannot write to {existing}", remedy)
    if free_gib < _LITTLE_DISK_GIB:
        level: Level = "fault" if free_gib < _NO_DISK_GIB else "warning"
        return Finding("disk", level, found, "free space: records and pictures need it", {"free_gib": free_gib})
    return ok("disk", found, free_gib=free_gib)


def jetson_findings(root: Path) -> Iterator[Finding]:
    """Model, power mode and clock rates of a Jetson; nothing on other machines."""
    release = text_of(root / "etc/nv_tegra_release")
    if not release:
        return
    number = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    linux = f"Jetson Linux {number[1]}.{number[2]}" if number else release.splitlines()[0]
    model = text_of(root / "proc/device-tree/model").strip("\0") or "Jetson"
    yield ok("Jetson", f"{model}, {linux}")
    mode = re.search(r"NV Power Mode: *(\S+)", output_of("nvpmodel", "-q") or "")
    yield ok("power mode", mode[1] if mode else "not reported by nvpmodel")
    yield ok("clocks", "; ".join(_clocks(root)) or "not reported by the kernel")


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
    return f"{name} {mhz[0]} MHz, {'fixed' if low == high else f'variable from {mhz[1]} to {mhz[2]}'}"


def _number(file: Path) -> int | None:
    text = text_of(file)
    return int(text) if text.lstrip("-").isdecimal() else None
