"""Settings are frozen dataclasses: the field is the flag, its default, its help and its key in ``config.json``."""

import dataclasses
import difflib
import json
from collections.abc import Iterable
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""``__pydantic_config__`` of every settings class: no unknown keys, no conversions, no NaN."""

MAX_SHOWN = 60
"""Characters of a value that an error shows."""

MAX_PROBLEMS = 20
"""Problems that an error lists; it counts the others."""

Settings = TypeVar("Settings")


def to_json(settings: Any) -> dict[str, Any]:
    """A settings object as plain JSON values; paths become strings."""
    from pydantic import TypeAdapter

    result = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    assert isinstance(result, dict)
    return result


def from_json(kind: type[Settings], value: Any, place: str) -> Settings:
    """Read settings back. Raises `ConfigurationError` naming `place` and every key at fault, with the nearest valid."""
    problems: list[str] = []
    settings = _read(kind, value, "", problems)
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS:,} more"] if len(problems) > MAX_PROBLEMS else []
        raise ConfigurationError(f"{place}: {'; '.join(problems[:MAX_PROBLEMS] + more)}")
    assert isinstance(settings, kind)
    return settings


def differences(settings: Any, reference: Any) -> dict[str, tuple[Any, Any]]:
    """Fields in which two settings of one class differ: name -> (value, reference's value)."""
    return {
        field.name: (getattr(settings, field.name), getattr(reference, field.name))
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != getattr(reference, field.name)
    }


def changes(before: Any, now: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys at which two JSON trees differ, such as ``settings.algorithm.cycles``: key -> (before, now).

    A key that one of them lacks counts as null there.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in before | now:
            found |= changes(before.get(name), now.get(name), _inner(key, name))
        return found
    return {} if before == now else {key: (before, now)}


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    """The value at `key` as `kind`, a settings class, a union of them or any plain type; problems are added."""
    members = _settings_classes(kind)
    if not members or (value is None and NoneType in get_args(kind)):
        return _read_plain(kind, value, key, problems)
    if not isinstance(value, dict):
        problems.append(f"{key or 'settings'}: must be an object, found {_shown(value)}")
        return None
    member = members[0]
    if len(members) > 1:
        named = {member.name: member for member in members}
        name = value.get("name")
        if not isinstance(name, str) or name not in named:
            found = f"{_shown(name)} is unknown{_nearest(name, named)}" if "name" in value else "missing"
            problems.append(f"{_inner(key, 'name')}: {found}, must be one of {', '.join(named)}")
            return None
        member = named[name]
    return _read_class(member, value, key, problems)


def _read_class(kind: Any, value: dict[str, Any], key: str, problems: list[str]) -> Any:
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, _hints(kind)
    before = len(problems)
    for name in value:
        if name not in fields:
            problems.append(f"{_inner(key, name)}: unknown key{_nearest(name, fields)}")
    given = {name: _read(hints[name], value[name], _inner(key, name), problems) for name in fields if name in value}
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            problems.append(f"{_inner(key, name)}: missing")
    return kind(**given) if len(problems) == before else None


def _read_plain(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        for item in error.errors():
            # a union names its members in the place of an error; what is no position in a list says nothing to a user
            inner = ".".join(str(part) for part in (key, *item["loc"]) if isinstance(part, int) or part == key)
            complaint = item["msg"].replace("Input should be", "must be")
            problems.append(f"{inner}: {complaint}, found {_shown(value)}")
    except RecursionError:
        problems.append(f"{key}: nested too deeply")
    return None


def _settings_classes(kind: Any) -> list[Any]:
    """The settings classes that a type admits: itself, or those in a union."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [member for member in members if dataclasses.is_dataclass(member)]


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _inner(key: str, name: str) -> str:
    """The key of `name` within the object at `key`."""
    name = name if name.isidentifier() and len(name) <= MAX_SHOWN else _shown(name)
    return f"{key}.{name}" if key else name


def _nearest(name: object, names: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(name)[:MAX_SHOWN], names, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _shown(value: object) -> str:
    """A JSON value on one line, cut where it is long."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "something nested"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
