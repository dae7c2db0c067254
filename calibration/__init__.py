"""Calibrate on images of good parts, and inspect images.

>>> import calibration
>>> bundle = calibration.calibrate("photos/good", "washers")
>>> with calibration.inspector("washers") as inspect:
...     result = inspect("photo.png")
>>> print(result.score, result.is_defect, result.heatmap.shape)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Before any library and inherited by child processes: ONNX Runtime for Linux writes an identity of the device into the
# home and sends telemetry; its own `disable_telemetry_events()` comes too late.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

if TYPE_CHECKING:
    from calibration.api import Inspection, Inspector, ShiftwatchError, calibrate, inspector, open_bundle

__all__ = ["Inspection", "Inspector", "ShiftwatchError", "calibrate", "inspector", "open_bundle"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the API at its first use: a process that needs one module of the package stays small."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")  # noqa: TRY003, EM102
        from calibration import api  # noqa: PLC0415

        return getattr(api, name)
