"""What a station may publish, by the JSON Schema that users get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.real_broker import Heard

PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "agent" / "messages" / "schema.json").read_text())
_VALIDATOR = Draft202012Validator(PUBLISHED)


def problems(topic: str, content: object) -> list[str]:
    """What is wrong with a message; ``topic`` is its topic below the station's root."""
    assert topic in PUBLISHED["properties"]
    return [f"{topic}: {error.json_path}: {error.message}" for error in _VALIDATOR.iter_errors({topic: content})]


def field_rows(definition: str) -> list[str]:
    """The fields of a message, or of an object in one, as rows of a Markdown table."""
    return [
        f"| `{key}` | {_type(field)} | {field['description']} |"
        for key, field in PUBLISHED["$defs"][definition]["properties"].items()
    ]


def _type(field: dict[str, Any]) -> str:
    kinds = [_type(each) for each in field["anyOf"]] if "anyOf" in field else [field.get("type", "integer")]
    return " or ".join(kinds) + (f", {field['unit']}" if "unit" in field else "")


def check_published(root: str, heard: Iterable[Heard]) -> set[str]:
    """Fail unless all messages of a station fit the schema; returns the topics that there were, commands left out."""
    topics = set()
    for message in heard:
        topic = message.topic.removeprefix(f"{root}/")
        if not topic.startswith("cmd/") or topic == "cmd/ack":
            assert problems(topic, message.content) == []
            topics.add(topic)
    return topics
