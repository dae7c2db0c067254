"""Reads a configuration from YAML, words its problems, and writes the reference table of its keys."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from agent.camera.shown_source import HIDDEN, without_password
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic_core import ErrorDetails

Model: TypeAlias = type[BaseModel]
M = TypeVar("M", bound=BaseModel)

_LONGEST_BYTES = 2**17
_MOST_VALUES, _DEEPEST = 2000, 32
_LONGEST_VALUE = 4096
_MOST_DIGITS = 9
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
# What PyYAML raises beside its own errors, for a date that does not exist, ``!!int ""``, ``!!bool x`` and others.
_NOT_A_VALUE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def load_model(model: type[M], path: Path) -> M:
    """A model from a YAML file; validation receives the file's folder as ``folder`` in its context.

    Raises:
        ConfigError: Lists everything that is wrong: file, YAML (line and column), repeated keys, keys, values.
    """
    what = f"the configuration {path} is not usable"
    document = _document(_text(path, what), what)
    values, problems = _plain_values(document, what)
    try:
        loaded = model.model_validate({} if values is None else values, context={"folder": path.absolute().parent})
    except ValidationError as error:
        problems += [_problem(model, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(what=what, problems=problems) from error
    if problems:
        raise ConfigError(what=what, problems=problems)
    return loaded


def markdown_table(model: Model) -> str:
    """Every key of the model with its default, allowed values and meaning, as a Markdown table."""
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for key, parent, name in _leaves(model):
        field = parent.model_fields[name]
        default = "required" if field.is_required() else _default_text(field.default)
        rows.append(f"| `{key}` | {default} | {_allowed(parent, name)} | {field.description} |")
    return "\n".join(rows) + "\n"


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


_Loader.add_implicit_resolver(
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


def _problem(model: Model, detail: ErrorDetails) -> str:
    """One line: the dotted key, what is wrong with it, what is allowed."""
    key = ".".join(str(part) for part in detail["loc"])
    parents = [str(part) for part in detail["loc"]]
    if detail["loc"] and isinstance(detail["loc"][-1], int) and _section(model, parents[:-1]) is None:
        parents.pop()  # an index of a list
    section = _section(model, parents)
    if detail["type"] == "value_error" and section is not None:
        return ": ".join([*([key] if key else []), str(detail["ctx"]["error"])])
    if section is not None:
        return _section_problem(section, key, detail)
    parent = _section(model, parents[:-1])
    if parent is None or parents[-1] not in parent.model_fields:
        return f"{key}: unknown key; {_suggestion(parents[-1], parent or model)}"
    allowed = _allowed(parent, parents[-1])
    if detail["type"] == "missing":
        return f"{key}: missing; use {allowed}"
    return f"{key}: {_shown(detail['input'])} is not allowed; use {allowed}"


def _section_problem(section: Model, key: str, detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        needed = [f"{key}.{name}" for name, field in section.model_fields.items() if field.is_required()]
        return f"{', '.join(needed)}: missing; use {_allowed(section, needed[0].rpartition('.')[2])}"
    keys = ", ".join(section.model_fields)
    return f"{key or 'the file'}: {_shown(detail['input'])} is not allowed; use the keys {keys}"


def _suggestion(key: str, section: Model) -> str:
    near = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(section.model_fields)}"


def _section(model: Model, parents: list[str]) -> Model | None:
    """The section at the end of a dotted key; None if it is a value, or unknown."""
    for name in parents:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _leaves(model: Model, prefix: str = "") -> Iterator[tuple[str, Model, str]]:
    for name in model.model_fields:
        section = _section(model, [name])
        if section is None:
            yield f"{prefix}{name}", model, name
        else:
            yield from _leaves(section, f"{prefix}{name}.")


def _allowed(model: Model, name: str) -> str:
    """The allowed values in words, from the field's JSON schema."""
    schema = model.model_json_schema()["properties"][name]
    if "anyOf" in schema and "allowed" not in schema:
        schema = next(option for option in schema["anyOf"] if option.get("type") != "null")
    if "allowed" in schema:
        return str(schema["allowed"])
    if "enum" in schema:
        return f"one of: {', '.join(schema['enum'])}"
    if schema["type"] == "array":
        return f"a list of: {', '.join(schema['items']['enum'])}"
    if schema["type"] in {"integer", "number"}:
        return _allowed_number(schema)
    return {"boolean": "true or false", "string": "a path" if schema.get("format") == "path" else "text"}[
        schema["type"]
    ]


def _allowed_number(schema: dict[str, Any]) -> str:
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if above is not None:
        return f"{kind} above {above:g}" + (f", at most {high:.10g}" if high is not None else "")
    return f"{kind}, {low:g} to {high:.10g}" if high is not None else f"{kind}, {low:g} or more"


def _default_text(default: object) -> str:
    if isinstance(default, list):
        return f"`[{', '.join(default)}]`"
    if isinstance(default, dict):
        return f"`{{{', '.join(f'{name}: {value}' for name, value in default.items())}}}`"
    return "none" if default is None else f"`{_shown(default).strip(chr(39))}`"


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _REPR.repr(value) if isinstance(value, (str, int, float, list, dict)) else str(value)


class _WithoutSecrets(reprlib.Repr):
    """Values in an error: an address may contain a password, and a section given for a value may be one."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(without_password(x), level)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict.fromkeys(x, HIDDEN), level)


_REPR = _WithoutSecrets()
