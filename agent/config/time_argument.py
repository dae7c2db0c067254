"""Times as arguments of the command line."""

from __future__ import annotations

import re
from datetime import datetime

from calibration.errors import SettingError

_AGO = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def time_ms(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 for ``2h`` (ago), a date, or a date and time; by default in this device's time zone.

    Raises:
        SettingError: The text is none of these.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_ms - int(ago[1]) * _UNIT_S[ago[2]] * 1000
    try:
        return round(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise SettingError(
            what=f"{text!r} is not a time",
            remedy="write 30m, 2h, 3d or 1w for that long ago, or 2026-09-21, or '2026-09-21 14:00'",
        ) from error
