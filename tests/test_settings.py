"""Settings: what is written reads back, and nothing else is let in."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from cdarts.errors import ConfigurationError
from cdarts.settings import STRICT, differences, from_json, to_json
from cdarts.spaces import AnySpace, DartsSpace, NasBench201Space, ToySpace


@dataclass(frozen=True, kw_only=True)
class Inner:
    __pydantic_config__: ClassVar = STRICT

    momentum: float = 0.9
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True, kw_only=True)
class Outer:
    __pydantic_config__: ClassVar = STRICT

    epochs: int = 3
    learning_rate: float = 0.1
    schedule: Literal["constant", "cosine"] = "cosine"
    out: Path | None = None
    inner: Inner = field(default_factory=Inner)
    space: AnySpace = field(default_factory=DartsSpace)


SETTINGS = [
    Outer(),
    Outer(epochs=7, learning_rate=1e-300, schedule="constant", out=Path("runs/a b"), inner=Inner(betas=(0.0, 1 / 3))),
    Outer(space=NasBench201Space()),
    Outer(space=ToySpace()),
    Outer(space=DartsSpace(pool_batchnorm=True, stem_name="imagenet")),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_read_back(settings: Outer) -> None:
    written = json.loads(json.dumps(to_json(settings)))
    assert from_json(Outer, written, "config.json") == settings


def test_paths_are_written_as_strings() -> None:
    assert to_json(Outer(out=Path("runs/a")))["out"] == "runs/a"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"epoch": 3}, "epoch"),
        ({"epochs": "3"}, "epochs"),
        ({"epochs": 3.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"epochs": None}, "epochs"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"schedule": "linear"}, "schedule"),
        ({"inner": {"momentum": "0.9"}}, r"inner\.momentum"),
        ({"inner": {"betas": [0.5]}}, r"inner\.betas"),
        ({"inner": {"nesterov": True}}, r"inner\.nesterov"),
        ({"space": {"name": "moon"}}, "space"),
        ({"space": {"name": "toy", "pool_batchnorm": True}}, "space"),
        ([], "settings"),
        ("text", "settings"),
        (None, "settings"),
    ],
)
def test_errors_name_file_and_key(value: Any, place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^config.json: .*{place}") as error:
        from_json(Outer, value, "config.json")
    assert error.value.exit_code == 2


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^here: epochs: .*; schedule: "):
        from_json(Outer, {"epochs": "x", "schedule": "x"}, "here")


def test_a_space_is_read_back_by_its_name() -> None:
    assert from_json(Outer, {"space": {"name": "nasbench201"}}, "here").space == NasBench201Space()


def test_differences() -> None:
    assert differences(Outer(), Outer()) == {}
    assert differences(Outer(epochs=4, inner=Inner(momentum=0.0)), Outer()) == {
        "epochs": (4, 3),
        "inner": (Inner(momentum=0.0), Inner()),
    }
