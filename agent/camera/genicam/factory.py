"""Makes the source for a GenICam camera."""

from __future__ import annotations

import importlib
from ctypes.util import find_library
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from agent.camera.genicam.source import GenicamSource
from agent.errors import CameraError
from calibration.errors import install_extra

if TYPE_CHECKING:
    from agent.camera.camera_settings import CameraSettings
    from agent.camera.genicam.source import Driver


class _Library(NamedTuple):
    """Through which a kind of source is reached; imported in the capture process alone."""

    name: str
    driver: str
    package: str = ""
    """Python package; empty for Aravis, which is none."""


_PACKAGE = __package__ or ""
_LIBRARIES = {
    "genicam": _Library("Aravis", "aravis.AravisDriver"),
    "basler": _Library("pypylon", "pylon.PylonDriver", "pypylon"),
    "gentl": _Library("Harvesters", "gentl.GentlDriver", "harvesters"),
}


SOURCES = tuple(f"{kind}:" for kind in _LIBRARIES)
"""How the source of a GenICam camera begins."""


def genicam_source(source: str, frames_per_s: float | None, settings: CameraSettings) -> GenicamSource:
    """A GenICam camera, not yet opened.

    Args:
        source: ``genicam:``, ``basler:`` or ``gentl:``, and which camera.
        frames_per_s: Rate to set; None leaves it.
        settings: Of the camera.
    """
    kind, _colon, name = source.partition(":")

    def connect() -> Driver:
        module, driver = _LIBRARIES[kind].driver.split(".")
        made: Driver = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), driver)(name)
        return made

    return GenicamSource(source, connect, settings, frames_per_s)


def check_library(source: str) -> None:
    """Raise CameraError if the library for this source is not installed."""
    kind = source.partition(":")[0]
    library = _LIBRARIES[kind]
    if library.package:
        if find_spec(library.package) is None:
            raise CameraError(what=f"{kind}: needs {library.name}, which is not installed", remedy=install_extra(kind))
    elif find_library("aravis-0.8") is None:
        raise CameraError(
            what=f"{kind}: needs {library.name}, which is not installed",
            remedy="on Debian, Ubuntu and JetPack: sudo apt install libaravis-0.8-0",
        )
