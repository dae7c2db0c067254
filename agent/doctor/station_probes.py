"""Checks a station's surroundings by its configuration: state folder, secrets, live page, broker."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.exposure import exposures
from agent.config.model import load
from agent.config.secret_files import web_token
from agent.doctor.finding import Finding, fault, ok
from agent.doctor.machine import disk_finding
from agent.doctor.system import is_agent_running
from agent.errors import BrokerRefusedError, BrokerUnreachableError, ConfigError, PageError
from agent.from_config import broker_settings
from agent.mqtt.connect import connect
from agent.state_lock import is_in_use
from agent.state_owner import acting_as, owner_of, unusable, with_owner
from agent.web.server_socket import check_packages, listening, url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.model import AgentConfig

_ROOMY_BYTES = 8192


def records(config: str) -> Iterator[Finding]:
    """Check the disk, whether an agent is running, and whether the live page can be served."""
    loaded = load(Path(config))
    with acting_as(owner_of(loaded.state_dir)):  # root would find that it may write anything
        yield from _state_findings(loaded.state_dir)
    if loaded.web.enabled:
        yield _page_finding(loaded)


def _state_findings(state_dir: Path) -> Iterator[Finding]:
    yield disk_finding(state_dir)
    remedy = f"give the folder and its files to the agent's user: chown -R USER {state_dir}"
    for path in unusable(state_dir):
        if path != state_dir:  # its finding is that of the disk
            yield Finding("state files", "fault", f"this user may not use {with_owner(path)}", remedy)
    try:
        running = is_in_use(state_dir)
    except OSError as error:
        remedy = "run the doctor as the agent's user: sudo -u USER"
        yield Finding("agent", "warning", f"cannot find out whether one is running: {error}", remedy)
    else:
        yield ok("agent", f"{'running' if running else 'none is running'} on {state_dir}")


def secrets_and_access(config: str) -> Iterator[Finding]:
    """Check who else may read or write the station's secrets, and whom its page is served to."""
    file = Path(config)
    found = list(exposures(load(file), file))
    yield from (Finding("secrets", "warning", each.what, each.remedy) for each in found)
    if not found:
        yield ok("secrets", "no other user may read or write them, and the page is not served to the network")


def _page_finding(config: AgentConfig) -> Finding:
    """Check the live page's packages, token and port. A running agent holds the port already."""
    web = config.web
    try:
        check_packages()
        token = web_token(config)
        if not is_agent_running(config.state_dir):
            listening(web.host, web.port).close()
    except (PageError, ConfigError) as error:
        return fault("page", error)
    return ok("page", f"{url(web.host, web.port)}, {'read-only' if token is None else 'changes need its token'}")


def broker(config: str) -> Iterator[Finding]:
    """Check whether the broker accepts a connection, with a client id of its own."""
    try:
        settings = broker_settings(load(Path(config)))
        settings = replace(settings, client_id=f"shiftwatch-doctor-{secrets.token_hex(2)}")
        start_s = time.monotonic()
        connection = connect(settings, None)
    except (ConfigError, BrokerRefusedError, BrokerUnreachableError) as error:
        yield fault("broker", error)
        return
    took_ms = (time.monotonic() - start_s) * 1e3
    connection.close()
    how = f"MQTT {settings.protocol}" + " over TLS" * settings.tls
    tested = f"tested as {settings.client_id!r}, because the station's own client id would disconnect its agent"
    found = f"{settings.address} accepts connections with {how}, in {took_ms:.0f} ms; {tested}"
    yield ok("broker", found, connect_ms=took_ms)
    limit_bytes = connection.limit.size_bytes
    if limit_bytes < _ROOMY_BYTES:
        found = f"the broker takes {limit_bytes} bytes at most: longer messages are shortened or dropped"
        yield Finding("packet size", "warning", found, f"let it take {_ROOMY_BYTES} bytes (mosquitto: max_packet_size)")
