"""What a configuration leaves open: secrets that other users of the device may read or write, a page without TLS."""

from __future__ import annotations

import ipaddress
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.camera.shown_source import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.model import AgentConfig


class Exposure(NamedTuple):
    """What is open, and what to do about it."""

    what: str
    remedy: str


def exposures(config: AgentConfig, file: Path) -> Iterator[Exposure]:
    """Everything that the configuration in ``file`` leaves open."""
    for key, path in _secret_files(config, file).items():
        yield from _of_file(key, path)
    web = config.web
    if web.enabled and not _is_loopback(web.host):
        yield Exposure(
            f"web.host: the page is served at {web.host} without TLS: pictures and token cross the network readable",
            "set web.host: 127.0.0.1 and use `ssh -L` or a proxy with TLS, or accept it in a network that you trust",
        )


def _secret_files(config: AgentConfig, file: Path) -> dict[str, Path]:
    source = str(config.camera.source)
    named = {
        "mqtt.password_file": config.mqtt.password_file,
        "mqtt.tls.key_file": config.mqtt.tls.key_file,
        "commands.token_file": config.commands.token_file,
        "web.token_file": config.web.token_file,
        "the configuration, with a camera's password": file if without_password(source) != source else None,
    }
    return {key: path for key, path in named.items() if path is not None}


def _of_file(key: str, path: Path) -> Iterator[Exposure]:
    try:
        mode, folder_mode = path.stat().st_mode, path.resolve().parent.stat().st_mode
    except OSError:  # reading it reports that
        return
    may = [word for bits, word in ((stat.S_IROTH, "read"), (stat.S_IWOTH | stat.S_IWGRP, "write")) if mode & bits]
    if may:
        yield Exposure(f"{key}: others may {' and '.join(may)} {path}", f"chmod g-w,o-rwx {path}")
    if folder_mode & stat.S_IWOTH and not folder_mode & stat.S_ISVTX:
        folder = path.resolve().parent
        yield Exposure(f"{key}: others may replace {path}, since they may write to {folder}", f"chmod o-w {folder}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
