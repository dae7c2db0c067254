"""Passwords and tokens, which stand in files of their own and never in the configuration."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config.model import AgentConfig
    from agent.config.services import MqttConfig

_HEADER_TEXT = r"[A-Za-z0-9._~+/=-]{8,200}"


def command_token(config: AgentConfig) -> str | None:
    """The token that commands over MQTT must contain; None where they need none.

    Raises:
        ConfigError: The file cannot be read, or is empty.
    """
    token = read_secret(config.commands.token_file, "commands.token_file")
    if token == "":
        raise ConfigError(
            problems=[f"commands.token_file: {config.commands.token_file} is empty; write a token into it"]
        )
    return token


def web_token(config: AgentConfig) -> str | None:
    """The token that changes from the live page must contain; None leaves the page read-only.

    Raises:
        ConfigError: The file cannot be read, or does not hold a token.
    """
    return None if config.web.token_file is None else page_token(config.web.token_file)


def page_token(file: Path) -> str:
    """The token in a file; raises ConfigError if it cannot be read, or does not hold a token."""
    token = read_secret(file, "web.token_file") or ""
    if not re.fullmatch(_HEADER_TEXT, token):
        raise ConfigError(problems=[f"web.token_file: {file} holds no valid token; write 8 or more letters and digits"])
    return token


def broker_password(mqtt: MqttConfig) -> str | None:
    """The password for the broker, if there is one; raises ConfigError if it cannot be read."""
    if mqtt.password_credential is not None:
        return read_secret(_credential(mqtt.password_credential), "mqtt.password_credential")
    return read_secret(mqtt.password_file, "mqtt.password_file")


def _credential(name: str) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        problem = "there are none outside systemd; add LoadCredential= to the unit, or give password_file"
        raise ConfigError(problems=[f"mqtt.password_credential: {problem}"])
    return Path(folder, name)


def read_secret(file: Path | None, key: str) -> str | None:
    """The password or token in a file, if there is one.

    Raises:
        ConfigError: The file, named by ``key``, cannot be read.
    """
    if file is None:
        return None
    try:
        return _text_of(file.read_bytes()).strip("\r\n")
    except OSError as error:
        raise ConfigError(problems=[f"{key}: cannot read {file}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(problems=[f"{key}: cannot read {file}: it is not text in UTF-8"]) from error


def _text_of(content: bytes) -> str:
    """Text without the byte order mark that editors on Windows put before it, in UTF-8 or UTF-16."""
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
