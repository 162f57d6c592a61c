"""Settings are frozen dataclasses: the field is the flag, its default, its help and its key in ``config.json``."""

import dataclasses
import json
from typing import Any, TypeVar

from cdarts.errors import ConfigurationError

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
"""``__pydantic_config__`` of every settings class: no unknown keys, no conversions, no NaN."""

Settings = TypeVar("Settings")


def to_json(settings: Any) -> dict[str, Any]:
    """A settings object as plain JSON values; paths become strings."""
    from pydantic import TypeAdapter

    result = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    assert isinstance(result, dict)
    return result


def from_json(kind: type[Settings], value: Any, place: str) -> Settings:
    """Read settings back. Raises `ConfigurationError` naming `place` and every key at fault."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"{place}: {problems}") from error


def differences(settings: Any, reference: Any) -> dict[str, tuple[Any, Any]]:
    """Fields in which two settings of one class differ: name -> (value, reference's value)."""
    return {
        field.name: (getattr(settings, field.name), getattr(reference, field.name))
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != getattr(reference, field.name)
    }
