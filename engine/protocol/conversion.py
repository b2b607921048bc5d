"""How wire classes and JSON values become one another: the hooks of one cattrs converter.

Hooks are compiled per class on first use. Loaded by the first call of `engine.protocol.codec`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import cattrs
from cattrs.errors import CattrsError, StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.msgspec import make_converter as make_msgspec_converter

from engine.protocol.events import EVENT_ALIASES
from engine.protocol.profile_codec import register as register_profiles
from engine.protocol.rollout_items import SessionMeta
from engine.protocol.settings import ApprovalPolicy, GranularApproval
from engine.protocol.wire import OMIT_DEFAULT, UNWRITTEN, JsonObject, UnknownVariant, Wire

__all__ = ["MISFITS", "make_converter"]

_Hook = Callable[[Any, Any], Any]

_PLAIN = {str, int, bool, float, type(None)}
_ALWAYS = object()  # equals no value, so such a field is never left out

# A few tags have older spellings.
_ITEM_ALIASES: Mapping[str, str] = {"compaction_summary": "compaction"}
_FIELD_ALIASES: Mapping[type, Mapping[str, str]] = {SessionMeta: {"agent_type": "agent_role"}}


# What a value that does not fit is told by; the texts are for people.
MISFITS = (TypeError, ValueError, AttributeError, OverflowError, CattrsError, StructureHandlerNotFoundError)


class _Mismatch(ValueError):
    """A JSON value of the wrong kind; becomes a `ProtocolError` at the door."""


def _scalar(kind: type, name: str) -> _Hook:
    def structure(value: Any, _: Any) -> Any:
        # bool is an int in Python, but not in JSON.
        if type(value) is not kind:
            raise _Mismatch(f"expected {name}, got {type(value).__name__}")
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise _Mismatch(f"expected a number, got {type(value).__name__}")
    return float(value)


def _json_object(value: Any, _: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise _Mismatch(f"expected an object, got {type(value).__name__}")
    return value


def _is_json_object(kind: Any) -> bool:
    return kind in (JsonObject, Mapping[str, object], dict)


def _is_wire(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Wire)


def _is_array(kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    return origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,))


def _structure_array(kind: Any, converter: cattrs.Converter) -> _Hook:
    """cattrs would take a string for an array of characters, and an object for one of its keys."""
    element = typing.get_args(kind)[0]
    make = list if typing.get_origin(kind) is list else tuple
    hook: _Hook | None = None

    def structure(value: Any, _: Any) -> Any:
        nonlocal hook
        if not isinstance(value, list | tuple):
            raise _Mismatch(f"expected an array, got {type(value).__name__}")
        if hook is None:
            hook = converter.get_structure_hook(element)
        return make([hook(part, element) for part in value])

    return structure


def _members(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union else ()


def _is_tagged_union(kind: Any) -> bool:
    return UnknownVariant in _members(kind) and type(None) not in _members(kind) and str not in _members(kind)


def _untag(kind: Any, converter: cattrs.Converter) -> _Hook:
    table: dict[str, _Hook] = {}
    classes: dict[str, type] = {member.type: member for member in _members(kind) if member is not UnknownVariant}
    aliases = {**EVENT_ALIASES, **_ITEM_ALIASES}

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"expected an object, got {type(value).__name__}")
        tag = value.get("type")
        if not isinstance(tag, str):
            raise _Mismatch("the object has no `type`")
        tag = aliases.get(tag, tag)
        cls = classes.get(tag)
        if cls is None:
            return UnknownVariant(value)
        hook = table.get(tag)
        if hook is None:
            hook = table[tag] = converter.get_structure_hook(cls)
        return hook(value, cls)

    return structure


def _text_or(kind: Any, converter: cattrs.Converter) -> _Hook:
    """Unions of a string with one other thing: an approval policy, a tool output, an error info, a source."""
    others = [member for member in _members(kind) if member not in (str, type(None))]
    nullable = type(None) in _members(kind)
    hooks = [(other, converter.get_structure_hook(other)) for other in others]

    def structure(value: Any, _: Any) -> Any:
        if isinstance(value, str) or (value is None and nullable):
            return value
        for other, hook in hooks:
            return hook(value, other)
        raise _Mismatch(f"expected a string, got {type(value).__name__}")

    return structure


def _is_text_or(kind: Any) -> bool:
    members = _members(kind)
    others = [member for member in members if member not in (str, type(None))]
    return str in members and len(others) == 1


def _structure_wire(cls: Any, converter: cattrs.Converter) -> _Hook:
    base = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_detailed_validation=False,
        _cattrs_forbid_extra_keys=False,
        extra=override(omit=True),
    )
    known = {field.name for field in attrs.fields(cls)} - {"extra"} | {"type"}
    aliases = _FIELD_ALIASES.get(cls, {})

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"expected an object, got {type(value).__name__}")
        for alias, name in aliases.items():
            if alias in value and name not in value:
                value = {(name if key == alias else key): part for key, part in value.items()}
        made = base(value, cls)
        if not value.keys() <= known:
            object.__setattr__(made, "extra", {key: part for key, part in value.items() if key not in known})
        return made

    return structure


def _unstructure_wire(cls: Any, converter: cattrs.Converter) -> Callable[[Any], JsonObject]:
    """Fields in the order of the class, as other writers have it; cattrs' own generator puts optional ones last."""
    attrs.resolve_types(cls)
    plan: list[tuple[str, object, Callable[[Any], Any] | None]] = []
    for field in attrs.fields(cls):
        if field.name == "extra" or field.metadata.get(UNWRITTEN):
            continue
        default = field.default if field.metadata.get(OMIT_DEFAULT) else _ALWAYS
        plain = field.type in _PLAIN or (_members(field.type) and set(_members(field.type)) <= _PLAIN)
        plan.append((field.name, default, None if plain else converter.get_unstructure_hook(field.type)))
    tag = None if hasattr(cls, "line_type") else getattr(cls, "type", None)
    head: JsonObject = {"type": tag} if isinstance(tag, str) else {}

    def unstructure(value: Any) -> JsonObject:
        made = dict(head)
        for name, default, hook in plan:
            part = getattr(value, name)
            if part == default:
                continue
            made[name] = part if hook is None or part is None else hook(part)
        if value.extra:
            for key, part in value.extra.items():
                made.setdefault(key, part)
        return made

    return unstructure


def _approvals(converter: cattrs.Converter) -> _Hook:
    def structure(value: Any, _: Any) -> ApprovalPolicy:
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and isinstance(value.get("granular"), dict):
            return converter.structure(value["granular"], GranularApproval)
        raise _Mismatch("expected an approval policy name or a `granular` table")

    return structure


def make_converter() -> cattrs.Converter:
    """The converter of the core wire."""
    made = make_msgspec_converter(
        prefer_attrib_converters=False, detailed_validation=False, unstruct_collection_overrides={}
    )
    made.register_structure_hook(str, _scalar(str, "a string"))
    made.register_structure_hook(int, _scalar(int, "an integer"))
    made.register_structure_hook(bool, _scalar(bool, "a boolean"))
    made.register_structure_hook(float, _number)
    made.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    made.register_structure_hook_func(_is_json_object, _json_object)
    made.register_unstructure_hook_func(_is_json_object, lambda value: value)
    made.register_unstructure_hook_func(lambda kind: kind is object, lambda value: value)
    made.register_structure_hook_factory(_is_array, _structure_array)
    made.register_structure_hook_factory(_is_tagged_union, _untag)
    made.register_structure_hook_factory(_is_text_or, _text_or)
    made.register_structure_hook_func(lambda kind: kind == ApprovalPolicy, _approvals(made))
    register_profiles(made)
    made.register_structure_hook_factory(_is_wire, _structure_wire)
    made.register_unstructure_hook_factory(_is_wire, _unstructure_wire)
    made.register_unstructure_hook(UnknownVariant, lambda value: value.raw)
    granular = _unstructure_wire(GranularApproval, made)
    made.register_unstructure_hook(GranularApproval, lambda value: {"granular": granular(value)})
    return made
