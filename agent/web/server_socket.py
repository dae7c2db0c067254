"""The page of a station, as configured; what is missing for it is said before anything is inspected."""

from __future__ import annotations

import importlib.util
import logging
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.errors import PageError
from agent.settings import station_topics, web_token
from agent.web.ipc import Order
from agent.web.page_feed import Page

if TYPE_CHECKING:
    from contextlib import ExitStack

    from agent.config.model import AgentConfig

_PACKAGES = ("starlette", "uvicorn")
_WAITING_BROWSERS = 64

log = logging.getLogger(__name__)


def page_of(config: AgentConfig, stack: ExitStack) -> Page | None:
    """The page, which begins with its ``enter``; None where nobody wants it.

    Args:
        config: Of the station.
        stack: Closes the port, which is taken now.

    Raises:
        PageError: The packages of the extra are missing, the port is in use, or the address is not one of this device.
        ConfigError: The token cannot be read, or is none.
    """
    web = config.web
    if not web.enabled:
        return None
    check_packages()
    order = Order(
        names=(*web.names, socket.gethostname(), web.host),
        token=web_token(config),
        state_dir=str(config.state_dir.absolute()),
        has_archive=config.archive.enabled,
        station=station_topics(config.station).root,
        version=version("shiftwatch"),
        log_level=config.log.level,
        log_format=config.log.format,
    )
    page = Page(order, stack.enter_context(listening(web.host, web.port)))
    log.info("live page at %s%s", url(web.host, web.port), "" if order.token else ", read-only: there is no token_file")
    return page


def check_packages() -> None:
    """Return where the extra is installed.

    Raises:
        PageError: It is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise PageError(
            what=f"web.enabled is true, but the page needs packages that are not installed: {', '.join(missing)}",
            remedy="install the extra `web` into the agent's environment, in the clone: pip install '.[web]'; "
            "or set web.enabled: false",
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections there.

    Raises:
        PageError: The port is in use, or the address is not one of this device.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_WAITING_BROWSERS)
    except OSError as error:
        raise PageError(
            what=f"the page cannot be served at {url(host, port)}: {error.strerror or error}",
            remedy="give each station a web.port of its own (`ss -ltnp` shows who has it), "
            "and an address of this device as web.host",
        ) from error


def url(host: str, port: int) -> str:
    """Where browsers find it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
