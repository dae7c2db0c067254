"""Writes the configuration of a station, with what each key means above it."""

from __future__ import annotations

import textwrap
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from agent.config import loader
from agent.config.model import AgentConfig
from agent.config.yaml_values import not_of_a_file, yaml_text, yaml_value
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_HEAD = """\
# Shiftwatch: one station. Relative paths start at the folder of this file. Every key:
# agent/config/README.md, or `shiftwatch-agent config --reference`.
"""
_WIDTH = 100


def station_text(values: Mapping[str, Any]) -> str:
    """A configuration file with these keys, in the order of the reference.

    Args:
        values: Sections and keys, as YAML has them.
    """
    return "\n".join([_HEAD, *_lines(AgentConfig, values, "")]) + "\n"


def with_values(values: Mapping[str, Any], given: Sequence[str], folder: Path) -> dict[str, Any]:
    """The values, with those given as ``KEY=VALUE``.

    Args:
        values: Sections and keys.
        given: Dotted keys, each with a value in YAML.
        folder: Where relative paths start.

    Raises:
        ConfigError: One is not of that form, or the configuration would not be usable.
    """
    changed = deepcopy(dict(values))
    for text in given:
        key, is_given, value = text.partition("=")
        if not (key and is_given):
            raise ConfigError(what=f"{text!r} is not KEY=VALUE", problems=["give for example mqtt.host=10.0.0.5"])
        _set(changed, key.split("."), yaml_value(value))
    what = "these values make no usable configuration"
    loader.validated(AgentConfig, changed, folder, what, list(not_of_a_file(changed)))
    return changed


def _set(values: dict[str, Any], names: Sequence[str], value: object) -> None:
    for name in names[:-1]:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    values[names[-1]] = value


def _lines(model: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name not in values:
            continue
        value, section = values[name], field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if value:  # where all its lines are commented out it is null
                yield from ("", *_comment((section.__doc__ or "").partition("\n")[0], indent), f"{indent}{name}:")
                yield from _lines(section, value, f"{indent}  ")
        else:
            described = field.description or ""
            yield from _comment(described[:1].upper() + described[1:], indent)
            yield textwrap.indent(yaml_text({name: value}, _WIDTH).rstrip("\n"), indent)


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
