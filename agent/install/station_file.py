"""Rewrites a station's configuration for the service: absolute paths, and the service's state folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from agent.config import model as configuration
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.model import AgentConfig

_UNSEEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - only compared


def for_service(file: Path, state_dir: Path) -> str:
    """The text of a configuration with absolute paths and the service's state folder; comments and order stay.

    Raises:
        ConfigError: The file is not valid, names another state folder, or its paths cannot be rewritten.
    """
    config = configuration.load(file)
    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    changes = [
        (node.start_mark.index, node.end_mark.index, json.dumps(str(path), ensure_ascii=False))
        for key, path in configuration.named_paths(config).items()
        if (node := _node(root, key)) is not None and node.value != str(path)
    ]
    if _node(root, "state_dir") is None:
        begin = 0 if root is None else root.start_mark.index
        changes.append((begin, begin, f"state_dir: {state_dir}\n"))
    elif config.state_dir != state_dir:
        raise ConfigError(
            what=f"a service cannot use the configuration {file}",
            problems=[
                f"state_dir: {config.state_dir} is not {state_dir}, the only folder that the service can write to"
            ],
            remedy=f"remove the line; to keep records on another disk, mount it at {state_dir}",
        )
    for start, end, replacement in sorted(changes, reverse=True):
        text = text[:start] + replacement + text[end:]
    _check_unchanged(text, config.model_copy(update={"state_dir": state_dir}), file)
    return text


def unseen_paths(config: AgentConfig, programs: Mapping[str, Path]) -> Iterator[str]:
    """Paths that the service cannot see, because home folders and temporary folders are hidden from it."""
    for key, path in {**configuration.named_paths(config), **programs}.items():
        if any(folder in path.parents for folder in _UNSEEN):
            yield f"{key}: {path}"


def _node(root: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a dotted key."""
    node = root
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for named, value in pairs if named.value == name), None)
    return node


def _check_unchanged(text: str, expected: AgentConfig, file: Path) -> None:
    """Load the rewritten text and compare, because YAML can be written in many ways."""
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / file.name
        rewritten.write_text(text, encoding="utf-8")
        try:
            if configuration.load(rewritten) == expected:
                return
        except ConfigError:
            pass
    raise ConfigError(
        what=f"the paths in {file} cannot be made absolute",
        problems=["its YAML has a form that cannot be edited automatically"],
        remedy="write each key on its own line, with absolute paths and without anchors",
    )
