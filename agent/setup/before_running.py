"""The set-up before a station runs: of a new one, and of one that has no bundle yet."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.camera.sources import is_file_name
from agent.config import model as configuration
from agent.config.services import WebConfig
from agent.setup.order import SetupOrder
from agent.setup.session import set_up, token_in
from agent.state_lock import state_lock
from agent.station.untaught import UntaughtStation, has_bundles
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from agent.config.model import AgentConfig

log = logging.getLogger(__name__)

_PAGE_AGAIN_S = 30.0
_LOOK_EVERY_S = 0.2


def new_order(config: Path, host: str, port: int, camera: str | None) -> SetupOrder:
    """The set-up of a new station, or again of the one of this configuration.

    Args:
        config: The configuration to write, or to begin with.
        host: Address of the page.
        port: Its port.
        camera: As text; a path starts here. None: the camera of the configuration or of the set-up before.

    Raises:
        ConfigError: The configuration, or its token, is not usable.
        SetupError: The token cannot be written.
    """
    web = configuration.load(config).web if config.exists() else WebConfig()
    token_file = web.token_file or config.absolute().parent / "web-token"
    first = {} if camera is None else {"camera": {"source": _source(camera)}}
    return _order(config, token_file, host=host, port=port, names=web.names, first=first)


def set_up_station(order: SetupOrder, stop: Event, served: Callable[[SetupOrder], object]) -> bool:
    """Serve the set-up until the station is to start (true), or to stop (false).

    Args:
        order: What is set up.
        stop: Ends it.
        served: Called when the page is served.

    Raises:
        ShiftwatchError: The page cannot be served, or the station is running.
    """
    config = Path(order.config)
    with state_lock(configuration.load(config).state_dir if config.exists() else config.parent / "state"):
        return set_up(order, stop, served=served)


def wait_until_taught(config: Path, settings: AgentConfig, stop: Event) -> AgentConfig | None:
    """Where there is no bundle yet: report that, and serve the set-up if there is a page with a token.

    Returns:
        The configuration to run, which a set-up has written again; None if ``stop`` came before there was a bundle.

    Raises:
        ShiftwatchError: The station cannot even report that.
    """
    if has_bundles(settings):
        return settings
    with ExitStack() as stack:
        stack.enter_context(state_lock(settings.state_dir))
        station = stack.enter_context(UntaughtStation(settings))
        log.warning("not taught: there is no bundle at %s", ", ".join(map(str, settings.bundle.values())))
        web = settings.web
        while web.enabled and web.token_file is not None:
            try:
                order = _order(config, web.token_file, host=web.host, port=web.port, names=web.names, first={})
                return configuration.load(config) if set_up(order, stop, station.look) else None
            except ShiftwatchError as error:  # the line must see the state all the same
                log.error("no set-up page: %s; trying again in %g s", error.one_line, _PAGE_AGAIN_S)  # noqa: TRY400 - it says all
            if _comes(station, stop, _PAGE_AGAIN_S):
                return settings
            if stop.is_set():
                return None
        log.warning("to teach it in a browser, stop this and give: shiftwatch-agent setup --config %s", config)
        return settings if _comes(station, stop, float("inf")) else None


def _comes(station: UntaughtStation, stop: Event, within_s: float) -> bool:
    """Whether a bundle comes, before ``stop`` and in this time."""
    end_s = time.monotonic() + within_s
    while not stop.is_set() and time.monotonic() < end_s:
        if station.look():
            return True
        stop.wait(_LOOK_EVERY_S)
    return False


def _source(camera: str) -> int | str:
    if camera.isdecimal():
        return int(camera)
    return str(Path(camera).absolute()) if camera and is_file_name(camera) else camera


def _order(config: Path, token_file: Path, **more: Any) -> SetupOrder:  # noqa: ANN401 - as of SetupOrder
    names = [*more.pop("names"), socket.gethostname(), more["host"]]
    return SetupOrder(
        config=str(config.absolute()), token=token_in(token_file), token_file=str(token_file), names=names, **more
    )
