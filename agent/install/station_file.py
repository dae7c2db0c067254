"""A station's configuration as the service needs it: the same, with whole paths and the state folder of the service."""

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

_UNSEEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - warned of, not used


def for_service(file: Path, state_dir: Path) -> str:
    """The text of a configuration that means the same wherever it lies; comments and order stay.

    Args:
        file: The configuration.
        state_dir: Where the service keeps its records.

    Raises:
        ConfigError: It is not usable, names another state folder, or its paths cannot be rewritten.
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
            what=f"the configuration {file} does not suit a service",
            problems=[f"state_dir: {config.state_dir} is not {state_dir}, the only folder that the service may write"],
            remedy=f"remove the line; to keep records on another disk mount it at {state_dir}",
        )
    for start, end, replacement in sorted(changes, reverse=True):
        text = text[:start] + replacement + text[end:]
    _check(text, config.model_copy(update={"state_dir": state_dir}), file)
    return text


def unseen_paths(config: AgentConfig, programs: Mapping[str, Path]) -> Iterator[str]:
    """What the service will not find, though it may be there: it sees neither homes nor anybody's temporary files."""
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


def _check(text: str, meant: AgentConfig, file: Path) -> None:
    """YAML can be written in many ways: whether this is still the same configuration is asked, not assumed."""
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / file.name
        rewritten.write_text(text, encoding="utf-8")
        try:
            if configuration.load(rewritten) == meant:
                return
        except ConfigError:
            pass
    raise ConfigError(
        what=f"the paths in {file} cannot be made absolute",
        problems=["its YAML is written in a way that cannot be edited"],
        remedy="write each key on a line of its own, with absolute paths and without anchors",
    )
