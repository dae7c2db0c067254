"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import datetime

from calibration.errors import SettingError

_AGO = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment_ms(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of ``2h`` (ago), of a date, or of a date with a time; without a zone, this device's.

    Raises:
        SettingError: It is none of these.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_ms - int(ago[1]) * _UNIT_S[ago[2]] * 1000
    try:
        return round(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise SettingError(
            what=f"{text!r} is no point in time",
            remedy="write 30m, 2h, 3d or 1w for so long ago, or 2026-09-21, or '2026-09-21 14:00'",
        ) from error
