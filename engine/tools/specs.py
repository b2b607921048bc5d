"""How tools are described to the model: the members of the `tools` array (tools.md 1.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.protocol.wire import JsonObject

__all__ = ["array", "boolean", "enumeration", "function_spec", "number", "object_schema", "string"]


def function_spec(name: str, description: str, parameters: JsonObject) -> JsonObject:
    """The entry of a function tool; `parameters` is its JSON Schema."""
    return {"type": "function", "name": name, "description": description, "strict": False, "parameters": parameters}


def object_schema(properties: Mapping[str, JsonObject], required: Sequence[str]) -> JsonObject:
    """An object without other members; in alphabetical order, so that prompt caches hold."""
    return {
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "required": list(required),
        "additionalProperties": False,
    }


def string(description: str) -> JsonObject:
    return {"type": "string", "description": description}


def number(description: str) -> JsonObject:
    return {"type": "number", "description": description}


def boolean(description: str) -> JsonObject:
    return {"type": "boolean", "description": description}


def enumeration(values: Sequence[str], description: str) -> JsonObject:
    return {"type": "string", "description": description, "enum": list(values)}


def array(items: JsonObject, description: str) -> JsonObject:
    return {"type": "array", "description": description, "items": items}
