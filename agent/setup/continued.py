"""Where a set-up begins: at the configuration that there is, or where the set-up before was left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.setup.draft import Drafts
from agent.setup.station_files import SECTIONS
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.setup.order import SetupOrder


def continued(file: Path, order: SetupOrder, before: Mapping[str, Any], empty: Path) -> Drafts:
    """The draft as it was left; where the configuration was written later, with what that says.

    Args:
        file: The draft.
        order: Its camera, if it has one, is used in any case.
        before: The configuration that there is; empty if there is none.
        empty: The set-up's own image of the empty place; made of that of the configuration if there is none yet.

    Raises:
        SetupError: The draft cannot be read or written.
    """
    config = Path(order.config)
    sections = {name: dict(before.get(name) or {}) for name in SECTIONS}
    configured = sections["trigger"].pop("empty", None)
    if configured is not None and not empty.exists():
        with suppress(OSError):
            replace_file(empty, (config.parent / configured).read_bytes())
    is_new = not file.exists()
    drafts = Drafts(file, config.parent, {**{name: keys for name, keys in sections.items() if keys}, **order.first})
    if is_new:
        return drafts
    if before and config.stat().st_mtime_ns > file.stat().st_mtime_ns:
        drafts.change(**sections)
    camera = order.first.get("camera")
    if camera and (drafts.draft.camera is None or drafts.draft.camera.source != camera["source"]):
        drafts.change(camera=camera)
    return drafts
