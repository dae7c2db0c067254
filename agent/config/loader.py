"""Makes configurations of values, words their problems, and writes the reference table of all keys."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agent.camera.shown_source import HIDDEN, without_password
from agent.config.yaml_values import values_of
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

Model: TypeAlias = type[BaseModel]
M = TypeVar("M", bound=BaseModel)
_OF_A_LIST = {"list_type", "too_short", "too_long"}


def load_model(model: type[M], path: Path) -> M:
    """A model from a YAML file; validation receives the file's folder as ``folder`` in its context.

    Raises:
        ConfigError: Lists everything that is wrong: file, YAML (line and column), repeated keys, keys, values.
    """
    what = f"the configuration {path} is not usable"
    values, problems = values_of(path, what)
    return validated(model, {} if values is None else values, path.absolute().parent, what, problems)


def validated(model: type[M], values: object, folder: Path, what: str, problems: Sequence[str] = ()) -> M:
    """A model from plain values; relative paths start at ``folder``.

    Raises:
        ConfigError: Says ``what`` is wrong; lists ``problems`` and all those of the values.
    """
    try:
        checked = model.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        found = [_problem(model, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(what=what, problems=[*problems, *found]) from error
    if problems:
        raise ConfigError(what=what, problems=problems)
    return checked


def markdown_table(model: Model) -> str:
    """Every key of the model with its default, allowed values and meaning, as a Markdown table."""
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for key, parent, name in _leaves(model):
        field = parent.model_fields[name]
        default = "required" if field.is_required() else _default_text(field.default)
        rows.append(f"| `{key}` | {default} | {_allowed(parent, name)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _problem(model: Model, detail: ErrorDetails) -> str:
    """One line: the dotted key, what is wrong with it, what is allowed."""
    key = ".".join(str(part) for part in detail["loc"])
    parents = _names_in(model, detail["loc"])
    section = _section(model, parents)
    if detail["type"] == "value_error" and section is not None:
        return ": ".join([*([key] if key else []), str(detail["ctx"]["error"])])
    if section is not None and detail["type"] not in _OF_A_LIST:
        return _section_problem(section, key, detail)
    parent = _section(model, parents[:-1])
    if parent is None or parents[-1] not in parent.model_fields:
        return f"{key}: unknown key; {_suggestion(parents[-1], parent or model)}"
    allowed = _allowed(parent, parents[-1])
    if detail["type"] == "missing":
        return f"{key}: missing; use {allowed}"
    return f"{key}: {_shown(detail['input'])} is not allowed; use {allowed}"


def _names_in(model: Model, location: Sequence[str | int]) -> list[str]:
    """The keys of a location, without the indices of lists."""
    names: list[str] = []
    for part in location:
        section = _section(model, names[:-1]) if isinstance(part, int) and names else None
        field = None if section is None else section.model_fields.get(names[-1])
        if field is None or not _is_list(field.annotation):
            names.append(str(part))
    return names


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


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
        section = _section_in(model.model_fields[name].annotation) if name in model.model_fields else None
        if section is None:
            return None
        model = section
    return model


def _section_in(annotation: object) -> Model | None:
    """The section that a key holds, or that each item of its list is; None if it is a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


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
    if low is None:
        return kind
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
