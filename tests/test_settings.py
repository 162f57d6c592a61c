"""Settings: what is written reads back, and nothing else is let in."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from cdarts import zoo
from cdarts.algorithms import ALGORITHMS, CyclicConfig
from cdarts.cli import main
from cdarts.commands.common import Setup, config_of
from cdarts.commands.resume import settings_of
from cdarts.commands.retrain import Retrain
from cdarts.commands.run import Run
from cdarts.commands.search import Search
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.retraining import Retraining
from cdarts.settings import MAX_PROBLEMS, STRICT, changes, differences, from_json, to_json
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
        ({"space": {"name": "moon"}}, r"space\.name"),
        ({"space": {}}, r"space\.name"),
        ({"space": {"name": "toy", "pool_batchnorm": True}}, r"space\.pool_batchnorm"),
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


def test_the_problems_are_those_of_the_member_that_was_named() -> None:
    value = to_json(Search(algorithm=PRESETS["gdas"]))
    value["algorithm"]["epoks"] = 3
    value["algorithm"]["weights"]["lr"] = "fast"
    with pytest.raises(ConfigurationError) as error:
        from_json(Search, value, "config.json")
    assert str(error.value) == (
        "config.json: algorithm.epoks: unknown key (did you mean epochs?); "
        'algorithm.weights.lr: must be a valid number, found "fast"'
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_reads_back(name: str) -> None:
    algorithm = next(algorithm for algorithm in PRESETS.values() if algorithm.name == name)
    settings = Search(algorithm=algorithm)
    assert from_json(Search, json.loads(json.dumps(to_json(settings))), "config.json") == settings


def test_a_long_list_of_problems_is_counted() -> None:
    with pytest.raises(ConfigurationError, match=r"; and 980 more$") as error:
        from_json(Outer, {f"key{number}": 0 for number in range(1000)}, "here")
    assert str(error.value).count("unknown key") == MAX_PROBLEMS


def test_what_is_long_or_odd_is_shown_short_and_escaped() -> None:
    with pytest.raises(ConfigurationError) as error:
        from_json(Outer, {"\x1b[31m\n": 0, "k" * 10_000: 0, "epochs": "x" * 10_000}, "here")
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 400


def test_values_that_are_nested_too_deeply() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for key in ("epochs", "odd", "inner"):
        with pytest.raises(ConfigurationError, match=key):
            from_json(Outer, {key: deep}, "here")


def test_changes() -> None:
    before = {"seed": 0, "algorithm": {"name": "gdas", "lr": 0.1, "betas": [0.5, 0.9]}, "out": "a"}
    assert changes(before, json.loads(json.dumps(before))) == {}
    now = {"seed": 0, "algorithm": {"name": "gdas", "lr": 0.2, "betas": [0.5, 0.8], "clip": 5.0}}
    assert changes(before, now) == {
        "algorithm.lr": (0.1, 0.2),
        "algorithm.betas": ([0.5, 0.9], [0.5, 0.8]),
        "algorithm.clip": (None, 5.0),
        "out": ("a", None),
    }


# -- configurations of runs --------------------------------------------------------------------------------------------


class _Absent:
    def __repr__(self) -> str:  # in test names, which must not depend on the process
        return "absent"


ABSENT = _Absent()
"""In place of a value: the key is taken away."""

CELL = zoo.load("nasbench201-resnet").to_json()
BEGUN: dict[str, dict[str, Any]] = {
    "gdas": config_of("search", Search(data="synthetic", algorithm=replace(PRESETS["gdas"], batch_size=64))),
    "cdarts": config_of("search", Search(data="synthetic", algorithm=CyclicConfig(channels=4))),
    "retrain": config_of("retrain", Retrain(data="synthetic", genotype="x", training=Retraining(cells=3, channels=4)))
    | {"genotype": CELL},
    "run": config_of("run", Run(data="synthetic")) | {"plan": {"search": {"name": "cdarts"}}},
}
ALPHA, WEIGHTS = "settings.algorithm.alpha", "settings.algorithm.weights"

CONFIGURATIONS: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    # keys
    ("gdas", {"settings.sed": 1}, 2, ("sed: unknown key (did you mean seed?)",)),
    ("gdas", {"settings.algorithm.epoks": 1}, 2, ("algorithm.epoks: unknown key (did you mean epochs?)",)),
    ("gdas", {"settings.algorithm.space.stem": 1}, 2, ("algorithm.space.stem: unknown key (did you mean stem_name?)",)),
    ("gdas", {f"{WEIGHTS}.momentun": 1}, 2, ("algorithm.weights.momentun: unknown key (did you mean momentum?)",)),
    ("gdas", {f"{ALPHA}.beta": 1}, 2, ("algorithm.alpha.beta: unknown key (did you mean betas?)",)),
    ("gdas", {"settings.qqqq": 1}, 2, ("qqqq: unknown key",)),
    ("gdas", {f"{WEIGHTS}.lr": ABSENT}, 2, ("algorithm.weights.lr: missing",)),
    (
        "gdas",
        {"settings.seed": "0", "settings.sed": 1, f"{ALPHA}.lr": None},
        2,
        ("seed: must be", "sed: unknown key", "algorithm.alpha.lr: must be"),
    ),
    ("cdarts", {"settings.algorithm.cycels": 3}, 2, ("algorithm.cycels: unknown key (did you mean cycles?)",)),
    ("retrain", {"settings.training.epoch": 5}, 2, ("training.epoch: unknown key (did you mean epochs?)",)),
    ("retrain", {"settings.genotype": ABSENT}, 2, ("config.json: genotype: missing",)),
    ("run", {"settings.buget": "1m"}, 2, ("buget: unknown key (did you mean budget?)",)),
    # members of unions
    ("gdas", {"settings.algorithm.name": "gdsa"}, 2, ('algorithm.name: "gdsa" is unknown (did you mean gdas?)',)),
    ("gdas", {"settings.algorithm.name": "darts"}, 2, ("algorithm.temperature: unknown key",)),
    ("gdas", {"settings.algorithm.name": ABSENT}, 2, ("algorithm.name: missing, must be one of cdarts,",)),
    ("gdas", {"settings.algorithm.name": None}, 2, ("algorithm.name: null is unknown",)),
    ("gdas", {"settings.algorithm.name": ["gdas"]}, 2, ('algorithm.name: ["gdas"] is unknown',)),
    ("gdas", {"settings.algorithm": None}, 2, ("algorithm: must be an object, found null",)),
    ("gdas", {"settings.algorithm": ["gdas"]}, 2, ("algorithm: must be an object",)),
    ("gdas", {"settings.algorithm.space": "darts"}, 2, ('algorithm.space: must be an object, found "darts"',)),
    ("gdas", {"settings.algorithm.space.name": "darst"}, 2, ("(did you mean darts?), must be one of darts, nas",)),
    ("gdas", {"settings.algorithm.space.name": "toy"}, 2, ("algorithm.space.pool_batchnorm: unknown key",)),
    # types
    ("gdas", {"settings.algorithm.epochs": "3"}, 2, ('algorithm.epochs: must be a valid integer, found "3"',)),
    ("gdas", {"settings.algorithm.epochs": 3.5}, 2, ("algorithm.epochs: must be a valid integer, found 3.5",)),
    ("gdas", {"settings.algorithm.epochs": True}, 2, ("algorithm.epochs: must be a valid integer, found true",)),
    ("gdas", {"settings.algorithm.epochs": None}, 2, ("algorithm.epochs: must be a valid integer, found null",)),
    ("gdas", {"settings.algorithm.epochs": [3]}, 2, ("algorithm.epochs: must be a valid integer, found [3]",)),
    ("gdas", {"settings.algorithm.affine": 1}, 2, ("algorithm.affine: must be a valid boolean",)),
    ("gdas", {f"{WEIGHTS}.lr": "1e-3"}, 2, ("algorithm.weights.lr: must be a valid number",)),
    ("gdas", {f"{WEIGHTS}.lr": math.nan}, 2, ("algorithm.weights.lr: must be a finite number, found NaN",)),
    ("gdas", {f"{WEIGHTS}.lr": -math.inf}, 2, ("algorithm.weights.lr: must be a finite number",)),
    ("gdas", {f"{ALPHA}.betas": [0.5, 0.9, 0.9]}, 2, ("algorithm.alpha.betas:", "at most 2 items")),
    ("gdas", {f"{ALPHA}.betas": [0.5, "x"]}, 2, ("algorithm.alpha.betas.1: must be a valid number",)),
    ("gdas", {"settings.data": None}, 2, ("data: must be a valid string",)),
    ("gdas", {"settings.data_root": 7}, 2, ("data_root: must be a valid string",)),
    ("gdas", {"settings.device": "tpu"}, 2, ("device: must be 'auto', 'cpu' or 'cuda', found \"tpu\"",)),
    (
        "gdas",
        {"settings.execution": "fast"},
        2,
        ("execution: must be 'auto', 'plain', 'share', 'merged', 'captured', 'fused' or 'recompute'",),
    ),
    ("gdas", {"settings.algorithm.space.stem_name": "big"}, 2, ("algorithm.space.stem_name: must be 'cifar',",)),
    ("cdarts", {"settings.algorithm.feedback": "kullback"}, 2, ("algorithm.feedback: must be 'kl',",)),
    ("cdarts", {"settings.algorithm.l1_operations": "none"}, 2, ("algorithm.l1_operations: must be a valid",)),
    ("retrain", {"settings.training.epochs": "5"}, 2, ("training.epochs: must be a valid integer",)),
    ("run", {"settings.budget": 60}, 2, ("budget: must be a valid string",)),
    # values that cannot work, or contradict each other
    ("gdas", {"settings.algorithm.epochs": 0}, 2, ("--epochs 0", "at least 1")),
    ("gdas", {"settings.algorithm.batch_size": 1}, 2, ("--batch-size 1", "at least 2")),
    ("gdas", {"settings.algorithm.batch_size": 10**6}, 2, ("--batch-size 1000000", "choose at most 128")),
    ("gdas", {"settings.algorithm.channels": 7}, 2, ("channels 7", "positive even number")),
    ("gdas", {"settings.algorithm.cells": 0}, 2, ("cells 0", "at least 1")),
    ("gdas", {f"{WEIGHTS}.lr": -1.0}, 2, ("lr -1.0",)),
    ("gdas", {f"{WEIGHTS}.momentum": 1.0}, 2, ("momentum 1.0", "below 1")),
    ("gdas", {"settings.threads": 0}, 2, ("--threads 0: must be at least 1",)),
    ("gdas", {"settings.image_size": 4}, 2, ("--image-size 4", "at least 8")),
    ("gdas", {"settings.data": "cifar11"}, 3, ("--data cifar11", "Did you mean cifar10?")),
    ("cdarts", {"settings.algorithm.cycles": 0}, 2, ("--cycles 0: must be at least 1",)),
    ("cdarts", {"settings.algorithm.search_cells": 1}, 2, ("--search-cells 1", "at least 2 cells in both")),
    ("cdarts", {"settings.algorithm.feedback_levels": [9]}, 2, ("--feedback-levels 9", "choose from 0 to 2")),
    ("cdarts", {"settings.algorithm.feedback_levels": [0, 0]}, 2, ("name each level once",)),
    ("cdarts", {"settings.algorithm.detach_teacher": True}, 2, ("--detach-teacher", "add --head-supervision")),
    ("cdarts", {"settings.algorithm.l1_operations": ["skip"]}, 2, ("--l1-operations skip", "not in space darts")),
    ("retrain", {"settings.training.drop_path": 1.0}, 2, ("--drop-path 1.0",)),
    ("retrain", {"settings.training.epochs": 0}, 2, ("--epochs 0: must be at least 1",)),
    ("retrain", {"genotype.version": 9}, 2, ('"version" is 9',)),
    ("retrain", {"genotype": ABSENT}, 2, ("genotype",)),
    # what is around
    ("gdas", {"command": "dance"}, 2, ('"command" must be one of search, retrain, run',)),
    ("gdas", {"command": ABSENT}, 2, ('"command" must be one of search, retrain, run',)),
    ("gdas", {"settings": ABSENT}, 2, ("config.json: settings: must be an object, found null",)),
    ("gdas", {"settings": []}, 2, ("config.json: settings: must be an object, found []",)),
    ("run", {"plan": ABSENT}, 2, ("config.json, plan: settings: must be an object",)),
    ("run", {"plan.search.cycles": "many"}, 2, ("plan: search.cycles: must be", "retraining: missing")),
    # what is right
    ("gdas", {}, 0, ()),
    ("gdas", {f"{WEIGHTS}.clip_norm": None}, 0, ()),
    ("gdas", {f"{WEIGHTS}.lr": 1}, 0, ()),
    ("gdas", {"settings.seed": 10**30}, 0, ()),
    ("gdas", {"settings.algorithm.epochs": ABSENT}, 0, ()),
    ("cdarts", {"settings.algorithm.feedback_levels": []}, 0, ()),
    ("retrain", {"settings.training.cells": None}, 0, ()),
    ("run", {"settings.out": "/somewhere/else"}, 0, ()),
]


def changed(config: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """A configuration with other values at some keys."""
    config = json.loads(json.dumps(config))
    for key, value in edits.items():
        *path, last = key.split(".")
        inner = config
        for name in path:
            inner = inner[name]
        if value is ABSENT:
            inner.pop(last)
        else:
            inner[last] = value
    return config


def test_there_are_sixty_configurations() -> None:
    assert len(CONFIGURATIONS) + len(NO_CONFIGURATIONS) >= 60


@pytest.mark.parametrize(
    ("begun", "edits", "exit_code", "words"),
    CONFIGURATIONS,
    ids=[f"{begun} {edits}"[:80] for begun, edits, _, _ in CONFIGURATIONS],
)
def test_configurations(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    begun: str,
    edits: dict[str, Any],
    exit_code: int,
    words: tuple[str, ...],
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(changed(BEGUN[begun], edits)))
    if exit_code == 0:
        assert isinstance(settings_of(tmp_path), Setup)
        return
    assert main(["resume", str(tmp_path)]) == exit_code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, "one line, no traceback"
    for word in words:
        assert word in error
    left = {file.name for file in tmp_path.iterdir()}
    assert left <= {"config.json", "report.html", "run.lock", "status.json"}, "nothing was begun"


NO_CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "truncated": (b'{"command": "search", "sett', "cannot be read"),
    "no JSON": (b"command: search", "cannot be read"),
    "another encoding": ('{"command": "söarch"}'.encode("latin-1"), "cannot be read"),
    "binary": (b"\x80\x04\x95" + bytes(100), "cannot be read"),
    "list": (b"[]", "must hold a JSON object"),
    "number": (b"7", "must hold a JSON object"),
    "number without end": (b'{"settings": 1' + b"0" * 10_000 + b"}", "cannot be read"),
    "deep": (b'{"a":' * 100_000, "cannot be read"),
}


@pytest.mark.parametrize("name", NO_CONFIGURATIONS)
def test_files_that_are_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content, complaint = NO_CONFIGURATIONS[name]
    (tmp_path / "config.json").write_bytes(content)
    assert main(["resume", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'config.json'}: ") and complaint in error
    assert error.count("\n") == 1
