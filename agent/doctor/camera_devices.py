"""Finds the cameras at ``/dev/video*`` and the formats that they offer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent.doctor.finding import Finding, ok
from agent.doctor.system import output_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# "Size: Discrete 640x480", or "Size: Stepwise 32x32 - 640x480 with step 2/2"; then its rates.
_SIZE = r"Size: \w+ (?:\d+x\d+ - )?(\d+)x(\d+)(.*?)(?=Size:|\Z)"


def cameras(root: Path = Path("/")) -> Iterator[Finding]:
    """One finding for each camera; device nodes without image formats, such as metadata, are left out."""
    devices = sorted((root / "dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    found = [finding for device in devices if (finding := _camera_finding(root, device)) is not None]
    yield from found or [ok("cameras", "none at /dev/video*")]


def _camera_finding(root: Path, device: Path) -> Finding | None:
    name = text_of(root / "sys/class/video4linux" / device.name / "name") or "unnamed camera"
    path = f"/dev/{device.name}"
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding(path, "warning", f"{name}: this user has no access", "add the user to the group video")
    listed = output_of("v4l2-ctl", "--device", str(device), "--list-formats-ext")
    if listed is None:
        return ok(path, f"{name} (install v4l-utils to see its formats)")
    formats = formats_in(listed)
    return ok(path, f"{name}: {', '.join(formats)}") if formats else None


def formats_in(listed: str) -> list[str]:
    """Each format with its largest size and the highest rate at that size, from ``v4l2-ctl --list-formats-ext``."""
    sections = re.split(r"^\s*\[\d+\]:", listed, flags=re.MULTILINE)[1:]
    return [_format_in(section) for section in sections]


def _format_in(section: str) -> str:
    code = re.search(r"'(.+?)'", section)
    sizes = [
        (int(width) * int(height), f"{width}x{height}", re.findall(r"\(([\d.]+) fps\)", rates))
        for width, height, rates in re.findall(_SIZE, section, re.DOTALL)
    ]
    _, size, rates = max(sizes, default=(0, "", []))
    rate = f"at {max(map(float, rates)):g}/s" if rates else ""
    return " ".join(filter(None, (code[1].strip() if code else "?", size, rate)))
