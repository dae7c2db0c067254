"""How this installation is completed and updated, for remedies."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution


def install_extra(extra: str) -> str:
    """The command that adds an extra: ``pip install --editable '.[web]' in the project's folder``.

    An editable install stays one, and a copy, as on a device, stays a copy.
    """
    return _command(f"'.[{extra}]'")


def install_newest() -> str:
    """The commands that bring the newest version."""
    return f"git pull and {_command('.')}"


def _command(what: str) -> str:
    return f"pip install {'--editable ' if _is_editable() else ''}{what} in the project's folder"


def _is_editable() -> bool:
    """True as well where the project runs from its folder without an installation."""
    try:
        origin = json.loads(distribution("shiftwatch").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return True
    return bool(origin.get("dir_info", {}).get("editable", False))
