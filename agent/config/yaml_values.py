"""Reads YAML with bounds and the place of each mistake, and writes it so that the same is read again."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import yaml

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LONGEST_BYTES = 2**17
_MOST_VALUES, _DEEPEST = 2000, 32
_LONGEST_VALUE = 4096
_MOST_DIGITS = 9
_BEGINS: dict[type[object], tuple[str, ...]] = {str: ("'", '"'), list: ("[",), dict: ("{",)}
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
# What PyYAML raises beside its own errors, for a date that does not exist, ``!!int ""``, ``!!bool x`` and others.
_NOT_A_VALUE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def values_of(path: Path, what: str) -> tuple[object, list[str]]:
    """Values in a YAML file, and its repeated keys, each with both places.

    Raises:
        ConfigError: Says ``what`` is wrong: the file cannot be read, or is not YAML.
    """
    return _plain_values(_document(_text(path, what), what), what)


def values_in(path: Path) -> dict[str, Any]:
    """Sections and keys in a YAML file, unchecked; none where it is empty.

    Raises:
        ConfigError: It cannot be read, or holds no sections and keys.
    """
    what = f"{path} cannot be used"
    values, problems = values_of(path, what)
    if problems or not isinstance(values, (dict, type(None))):
        raise ConfigError(what=what, problems=problems or ["it holds no sections and keys"])
    return values or {}


def yaml_value(text: str) -> object:
    """A value as a configuration has it; text needs no quotes, whatever colons and hashes a pipeline has."""
    try:
        value, _ = _plain_values(_document(text, text), text)
    except ConfigError:
        return text
    return value if text.lstrip().startswith(_BEGINS.get(type(value), ("",))) else text


def yaml_text(values: Mapping[str, Any], width: int = 80) -> str:
    """Keys and values as YAML, from which this module reads the same."""
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=width)


def not_of_a_file(values: object, key: str = "", depth: int = 0) -> Iterator[str]:
    """Problems of values that no configuration file may hold, each with its dotted key."""
    if depth > _DEEPEST:
        yield f"{key}: sections in each other deeper than {_DEEPEST}"
    elif isinstance(values, (dict, list)):
        for name, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from not_of_a_file(value, f"{key}.{name}".lstrip("."), depth + 1)
    elif problem := _odd_text(str(values), is_number=type(values) is int):
        yield f"{key}: {problem}"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but ``1e3`` is a number, and reading ends where there is too much of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One key or value, with all that is in it."""
        self._count += 1
        self._depth += 1
        if self._count > _MOST_VALUES or self._depth > _DEEPEST:
            problem = f"more than {_MOST_VALUES} keys and values, or sections in each other deeper than {_DEEPEST}"
            mark: yaml.Mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Puts text into quotes that `_Loader` would read as a number, or with other line breaks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text, on one line."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
    )


def _text(path: Path, what: str) -> str:
    try:
        with open(path, "rb", opener=_opened_at_once) as file:
            content = file.read(_LONGEST_BYTES + 1)
        if len(content) > _LONGEST_BYTES:
            raise ConfigError(what=what, problems=[f"it has more than {_LONGEST_BYTES // 1024} KiB"])
        return content.decode()
    except OSError as error:
        problem = f"{path.absolute()}: {error.strerror}"
        remedy = "give the path of a readable YAML file"
        raise ConfigError(what=what, problems=[problem], remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(what=what, problems=[f"byte {error.start} is not UTF-8 text"]) from error


def _opened_at_once(path: str, flags: int) -> int:
    """A named pipe without a writer is empty; opening it otherwise waits for one."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _document(text: str, what: str) -> tuple[_Loader, yaml.Node | None]:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        problems = [] if root is None else list(_odd_values(root))
    except yaml.YAMLError as error:
        raise ConfigError(what=what, problems=[_yaml_problem(error)]) from error
    if problems:
        raise ConfigError(what=what, problems=problems)
    return loader, root


def _plain_values(document: tuple[_Loader, yaml.Node | None], what: str) -> tuple[object, list[str]]:
    loader, root = document
    if root is None:
        return None, []
    repeated = list(_repeated_keys(root, ""))
    try:
        return loader.construct_document(root), repeated
    except yaml.YAMLError as error:
        raise ConfigError(what=what, problems=[*repeated, _yaml_problem(error)]) from error
    except _NOT_A_VALUE as error:
        raise ConfigError(what=what, problems=[*repeated, f"not a YAML value: {error}"]) from error


def _odd_values(root: yaml.Node) -> Iterator[str]:
    """Problems of values that no key takes. An alias counts as all that it stands for: in itself, as too much."""
    waiting, count = [root], 0
    while waiting:
        node, count = waiting.pop(), count + 1
        if count > _MOST_VALUES:
            yield f"it has more than {_MOST_VALUES} keys and values, counting what each alias repeats"
            return
        if isinstance(node, yaml.ScalarNode):
            if problem := _odd_text(node.value, is_number=node.tag.endswith(":int")):
                yield f"{_position(node.start_mark)}: {problem}"
        elif isinstance(node, yaml.MappingNode):
            waiting += [each for pair in node.value for each in pair]
        else:
            waiting += node.value


def _odd_text(text: str, *, is_number: bool) -> str | None:
    if len(text) > _LONGEST_VALUE:
        return f"{len(text)} characters are too many; use at most {_LONGEST_VALUE}"
    if found := _NOT_TEXT.search(text):
        return f"a value has the character U+{ord(found[0]):04X}, which is not text; remove it"
    if is_number and len(text) > _MOST_DIGITS:
        return f"a number of {len(text)} digits is too large; use at most {_MOST_DIGITS}, or quotes if it is text"
    return None


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{_position(error.problem_mark)}: not YAML: {error.problem}"
    return f"not YAML: {error}"


def _position(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _repeated_keys(node: yaml.Node, prefix: str) -> Iterator[str]:
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, yaml.Mark] = {}
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        if key in first:
            yield f"{key}: given twice, in {_position(first[key])} and {_position(key_node.start_mark)}"
        first.setdefault(key, key_node.start_mark)
        yield from _repeated_keys(value_node, f"{key}.")
