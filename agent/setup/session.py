"""A set-up as a command sees it: a process that serves the page until the station is to start."""

from __future__ import annotations

import json
import logging
import secrets
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.child_process import ChildProcess, ChildProgram
from agent.config.secret_files import page_token
from agent.errors import SetupError
from agent.setup.station_files import write_secret
from agent.web.server_socket import check_packages, listening, url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from agent.setup.order import SetupOrder

log = logging.getLogger(__name__)

_PROGRAM = ChildProgram(
    module="agent.setup.server_main",
    failure=SetupError,
    remedy="see the log above for why, and give the command again: it continues where it was",
    grace_s=1.0,
)


def token_in(file: Path) -> str:
    """The token in this file; a new one, if there is no file.

    Raises:
        ConfigError: It cannot be read, or is no token.
        SetupError: It cannot be written.
    """
    if file.exists():
        return page_token(file)
    token = secrets.token_hex(6)
    write_secret(file, token)
    return token


def set_up(
    order: SetupOrder,
    stop: Event,
    is_over: Callable[[], bool] = lambda: False,
    served: Callable[[SetupOrder], object] = lambda _: None,
) -> bool:
    """Serve the page until the station is to start (true), or ``stop`` is set (false).

    Args:
        order: What is set up.
        stop: Ends the set-up.
        is_over: Called several times a second; the station is to start when it says so.
        served: Called when the page is served.

    Raises:
        PageError: The extra ``web`` is missing, or the port is in use.
        SetupError: The process has failed.
    """
    check_packages()
    with (
        listening(order.host, order.port) as listener,
        ChildProcess(_PROGRAM, "the set-up", asdict(order), descriptors=[listener.fileno()]) as process,
    ):
        log.info("set-up page at %s", url(order.host, order.port))  # a log is no place for the token
        served(order)
        while not stop.is_set():
            if is_over():
                return True
            message = process.receive(0.2)
            report: dict[str, Any] = {"kind": "nothing"} if message is None else json.loads(message)
            if report["kind"] == "failed":
                raise SetupError(what=report["what"], remedy=report["remedy"])
            if report["kind"] == "go":
                return True
        return False


def address(order: SetupOrder) -> str:
    """Where the page is; the token follows the ``#``, which browsers do not send."""
    host = socket.gethostname() if order.host in {"0.0.0.0", "::"} else order.host  # noqa: S104 - only compared
    return f"{url(host, order.port)}#{order.token}"
