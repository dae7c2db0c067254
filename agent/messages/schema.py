"""JSON Schema of all messages: ``python -m agent.messages.schema > agent/messages/schema.json``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from agent.messages.fields import adapter
from agent.messages.payloads import ABSENT_IF_NULL, MESSAGES

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue
    from pydantic_core import core_schema


class _Published(GenerateJsonSchema):
    """What a station publishes: every key is there, whether reading would do without it or not."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        described = super().dataclass_schema(schema)
        described["required"] = [key for key in described["properties"] if key not in ABSENT_IF_NULL]
        return described

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - the title would only repeat the key
        return False


def schema() -> JsonSchemaValue:
    """JSON Schema (2020-12) with a definition for each topic.

    A document that fits the schema as a whole is an object of messages by topic; to check one message, take its
    definition: ``{"$ref": "schema.json#/$defs/Result"}``.
    """
    mode: JsonSchemaMode = "serialization"
    models = [(topic, mode, adapter(message)) for topic, message in MESSAGES.items()]
    topics, definitions = TypeAdapter.json_schemas(models, schema_generator=_Published)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Shiftwatch messages by their topic below {enterprise}/{site}/{area}/{line}/{cell}/vision/{station}",
        "type": "object",
        "properties": {topic: reference for (topic, _), reference in topics.items()},
        **definitions,
    }


def schema_text() -> str:
    """Content of ``schema.json``."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
