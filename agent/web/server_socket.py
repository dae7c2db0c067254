"""The socket that browsers connect to, and the packages that serving them needs."""

from __future__ import annotations

import importlib.util
import socket

from agent.errors import PageError
from calibration.errors import install_extra

_PACKAGES = ("starlette", "uvicorn")
_WAITING_BROWSERS = 64


def check_packages() -> None:
    """Raise PageError if the extra ``web`` is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise PageError(
            what=f"web.enabled is true, but the page needs packages that are not installed: {', '.join(missing)}",
            remedy=f"install them into the agent's environment: {install_extra('web')}; or set web.enabled: false",
        )


def listening(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PageError: The port is in use, or the address is not one of this device.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_WAITING_BROWSERS)
    except OSError as error:
        raise PageError(
            what=f"the page cannot be served at {url(host, port)}: {error.strerror or error}",
            remedy="give each station a web.port of its own (`ss -ltnp` shows what uses this one), "
            "and an address of this device as web.host",
        ) from error


def url(host: str, port: int) -> str:
    """Address of the page."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
