"""The live page of a station, as configured; anything missing is reported before the first frame is inspected."""

from __future__ import annotations

import logging
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.config.secret_files import web_token
from agent.from_config import station_topics
from agent.web.ipc import PageOrder
from agent.web.page_feed import PageFeed
from agent.web.server_socket import check_packages, listening, url

if TYPE_CHECKING:
    from contextlib import ExitStack

    from agent.config.model import AgentConfig

log = logging.getLogger(__name__)


def page_of(config: AgentConfig, stack: ExitStack) -> PageFeed | None:
    """The live page, which starts when it is entered; None where it is not enabled.

    Args:
        config: Configuration of the station.
        stack: Closes the port, which is opened now.

    Raises:
        PageError: The packages of the extra are missing, the port is in use, or the address is not one of this device.
        ConfigError: The token cannot be read, or is not valid.
    """
    web = config.web
    if not web.enabled:
        return None
    check_packages()
    order = PageOrder(
        names=(*web.names, socket.gethostname(), web.host),
        token=web_token(config),
        state_dir=str(config.state_dir.absolute()),
        has_archive=config.archive.enabled,
        shifts=config.statistics.shift_minutes(),
        station=station_topics(config.station).root,
        version=version("shiftwatch"),
        log_level=config.log.level,
        log_format=config.log.format,
    )
    page = PageFeed(order, stack.enter_context(listening(web.host, web.port)))
    log.info("live page at %s%s", url(web.host, web.port), "" if order.token else ", read-only: there is no token_file")
    return page
