"""What happens to a frame before the network, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.bundle.manifest import AlignmentRecord, PreprocessRecord


def learnt_rows(record: PreprocessRecord) -> list[tuple[str, str]]:
    """Name and text of what the preprocessing has learnt; none where that is nothing."""
    rows = []
    if record.alignment is not None:
        rows.append(("Alignment", _alignment(record.alignment)))
    if record.ignored is not None:
        rows.append(("Ignored", f"{record.ignored.share:.2%} of the region, painted over and never judged"))
    return rows


def _alignment(record: AlignmentRecord) -> str:
    if record.least_prominence is None:
        return "off: nothing on these parts stands still; the region stays where it is"
    followed = f"the region follows the part by up to {record.limit_px} pixels"
    if record.median_px is not None:
        followed += f"; good parts were off by {record.median_px:.0f} (median), {record.p99_px:.0f} (99th percentile)"
    count = record.followed + record.too_far + record.not_found
    return f"{followed}; of {count:,} good images {record.not_found:,} not found, {record.too_far:,} farther off"
