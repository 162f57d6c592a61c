"""The settings of the cyclic search: each field changes what it says, is refused where it cannot be, is documented."""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.algorithms import ALGORITHMS, CyclicConfig
from cdarts.algorithms.cyclic import CyclicSearch, l1_weight_at
from cdarts.cli import main
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.settings import from_json, to_json
from cdarts.spaces import DartsSpace, NasBench201Space, ToySpace

BASE = CyclicConfig(
    space=ToySpace(),
    channels=4,
    search_cells=3,
    eval_cells=3,
    batch_size=64,
    pretrain_epochs=1,
    cycles=2,
    feedback_levels=(0, 1),
    # so small that the topology stays, and only what a field says makes a difference
    alpha=Adam(lr=1e-6),
)
ONE_WAY = replace(BASE, detach_teacher=True, head_supervision=True)
UNTAUGHT = replace(BASE, feedback_weight=0.0)
UNCLIPPED = replace(BASE, search_weights=Sgd(lr=0.08, clip_norm=None), eval_weights=Sgd(lr=0.08, clip_norm=None))


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def trained(config: CyclicConfig, data: ImageData) -> CyclicSearch:
    """The search after its whole, tiny plan."""
    task = config.build(data, seed=0, device=torch.device("cpu"), execution="share")
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
    return task


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested state by their places."""
    match value:
        case Tensor():
            yield place, value
        case Mapping():
            for name, item in value.items():
                yield from tensors(item, f"{place}/{name}")
        case list():
            for index, item in enumerate(value):
                yield from tensors(item, f"{place}/{index}")


PARTS = ("relaxation", "search_net", "eval_net", "search_embeddings", "eval_embeddings")


def different_parts(one: CyclicSearch, other: CyclicSearch) -> set[str]:
    """Which modules differ in any tensor, or in its presence."""
    changed = set()
    for part in PARTS:
        first, second = (dict(tensors(task.state()["modules"][part])) for task in (one, other))
        if first.keys() != second.keys() or any(
            first[name].shape != second[name].shape or not torch.equal(first[name], second[name]) for name in first
        ):
            changed.add(part)
    return changed


@dataclass(frozen=True)
class Case:
    """A field's other value, and a part of the search that it must change."""

    field: str
    value: Any
    changes: str
    base: CyclicConfig = BASE

    def __str__(self) -> str:
        return f"{self.field}={self.value}"


CASES = [
    Case("space", NasBench201Space(), "search_net"),
    Case("channels", 6, "search_net"),
    Case("search_cells", 4, "search_net"),
    Case("eval_cells", 4, "eval_net"),
    Case("search_affine", True, "search_net"),
    Case("eval_affine", True, "eval_net"),
    Case("mean_nodes", True, "search_net"),
    Case("shared_stem", True, "eval_net"),
    Case("batch_size", 32, "search_net"),
    Case("pretrain_epochs", 2, "search_net"),
    Case("cycles", 1, "relaxation"),
    Case("warmup_epochs", 0, "eval_net"),
    Case("joint_epochs", 2, "relaxation"),
    Case("warmup_unchanged", False, "eval_net"),
    Case("warmup_half", "train", "eval_net"),
    Case("eval_training", False, "eval_net", UNTAUGHT),
    Case("random_topology", True, "eval_net"),
    Case("inherit_weights", False, "eval_net"),
    Case("inherit_batchnorm", False, "eval_net"),
    Case("persistent_optimizers", False, "search_net"),
    Case("search_weights", Sgd(lr=0.04), "search_net"),
    Case("search_weights", Sgd(lr=0.08, lr_end=0.0), "search_net"),
    Case("search_weights", Sgd(lr=0.08, momentum=0.5), "search_net"),
    Case("search_weights", Sgd(lr=0.08, weight_decay=0.1), "search_net"),
    Case("search_weights", Sgd(lr=0.08, clip_norm=0.1), "search_net"),
    Case("eval_weights", Sgd(lr=0.04), "eval_net"),
    Case("eval_weights", Sgd(lr=0.08, clip_norm=0.1), "eval_net"),
    Case("alpha", Adam(lr=0.1), "relaxation"),
    Case("alpha", Adam(lr_end=0.0), "relaxation"),
    Case("alpha", Adam(lr=1e-6, betas=(0.9, 0.999)), "relaxation"),
    Case("alpha", Adam(lr=1e-6, weight_decay=10.0), "relaxation"),
    Case("alpha", Adam(lr=1e-6, clip_norm=1e-6), "relaxation"),
    Case("joint_clip", True, "eval_net"),
    Case("feedback", "kl_mean", "relaxation"),
    Case("feedback", "smooth_l1", "relaxation"),
    Case("feedback", "mse", "relaxation"),
    Case("feedback", "cosine", "relaxation"),
    Case("feedback_weight", 2.0, "relaxation"),
    Case("feedback_weight", 0.0, "search_embeddings"),
    Case("temperature", 1.0, "relaxation"),
    Case("fusion", "batch", "relaxation"),
    Case("fusion", "levels", "relaxation"),
    Case("feedback_levels", (1,), "relaxation"),
    Case("level_weights", True, "relaxation"),
    Case("shared_embeddings", True, "eval_embeddings"),
    Case("train_embeddings", False, "search_embeddings"),
    Case("detach_teacher", False, "eval_net", ONE_WAY),
    Case("head_supervision", True, "eval_embeddings"),
    Case("l1_weight", 0.0, "relaxation"),
    Case("l1_operations", ("none", "skip_connect"), "relaxation"),
    Case("l1_scale", 0.01, "relaxation"),
    Case("l1_decay", 0.5, "relaxation"),
    Case("alpha_decay", 5.0, "relaxation"),
    Case("sharpness", 20.0, "relaxation"),
    Case("prior_only", True, "relaxation"),
    Case("joint_half", "train", "eval_net"),
    Case("teaching_weight", 1.0, "search_net"),
    Case("epoch_fraction", 0.5, "search_net"),
    Case("least_area", 0.5, "search_net"),
    Case("colour_jitter", (0.4, 0.4, 0.4, 0.2), "search_net"),
]

ELSEWHERE = {"name", "limits"}
"""Fields that are no part of the method: limits are every algorithm's (tests/test_limits.py)."""


@pytest.fixture(scope="module")
def bases(synthetic: ImageData) -> dict[CyclicConfig, CyclicSearch]:
    return {base: trained(base, synthetic) for base in {case.base for case in CASES}}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_field_changes_the_search(synthetic: ImageData, bases: dict[CyclicConfig, CyclicSearch], case: Case) -> None:
    assert getattr(case.base, case.field) != case.value
    changed = trained(replace(case.base, **{case.field: case.value}), synthetic)
    assert case.changes in different_parts(bases[case.base], changed)


def test_every_field_has_a_case() -> None:
    assert {case.field for case in CASES} == {field.name for field in dataclasses.fields(CyclicConfig)} - ELSEWHERE


def test_teaching_weights_adds_the_distance_of_final_logits(synthetic: ImageData) -> None:
    config = replace(UNCLIPPED, joint_half="train", feedback_weight=0.0, teaching_weight=3.0, pretrain_epochs=0)
    task = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    assert len(task.search_embeddings) == 0, "final logits need no embedding modules"
    plan = task.plan()
    task.start_epoch(0, plan[0])
    task.start_epoch(1, plan[1])
    train, val = next(task.batches(1))
    alone = copy.deepcopy(task)
    losses = task.step(0, train, val)
    assert {"search_loss", "teaching", "eval_loss", "search_val_loss", "l1"} <= losses.keys()
    # by hand, in the same order: alpha on val, w_E on train, w_S on train with E-Net as its teacher
    alone.architecture_step(val)
    alone.evaluation_weight_step(train)
    logits = alone.search_net(train.images, {"cell": alone.relaxation()["cell"].detach()}).logits
    teacher = alone.eval_net(train.images).logits.detach()
    kl = 4 * F.kl_div(
        F.log_softmax(logits / 2, dim=1), F.log_softmax(teacher / 2, dim=1), reduction="batchmean", log_target=True
    )
    (F.cross_entropy(logits, train.labels) + 3.0 * kl).backward()
    torch.testing.assert_close(losses["teaching"], kl.detach())
    assert torch.equal(task.relaxation.alpha["cell"], alone.relaxation.alpha["cell"])
    for name, parameter in alone.search_net.named_parameters():
        assert parameter.grad is not None
        stepped = parameter.detach() - 0.08 * (parameter.grad + 3e-4 * parameter.detach())
        torch.testing.assert_close(task.search_net.get_parameter(name).detach(), stepped, rtol=1e-4, atol=1e-6)


def test_settings_decide_everything(synthetic: ImageData, bases: dict[CyclicConfig, CyclicSearch]) -> None:
    """The comparison above sees no difference where there is none."""
    assert different_parts(bases[BASE], trained(BASE, synthetic)) == set()


def test_inherited_batchnorm_is_statistics_alone_without_weights_of_its_own(
    synthetic: ImageData, bases: dict[CyclicConfig, CyclicSearch]
) -> None:
    """Networks in training mode do not read their statistics: every weight and alpha goes the same way."""
    without = trained(replace(BASE, inherit_batchnorm=False), synthetic)
    changed = set()
    for part in PARTS:
        one, other = (dict(tensors(task.state()["modules"][part])) for task in (bases[BASE], without))
        assert one.keys() == other.keys()
        changed |= {f"{part}{name}" for name in one if not torch.equal(one[name], other[name])}
    assert changed
    assert all(re.fullmatch(r"eval_net/.*(running_mean|running_var|num_batches_tracked)", name) for name in changed)


def test_search_weights_do_not_reach_the_first_warmup(synthetic: ImageData) -> None:
    """The comparison tells networks apart: before the joint epochs S-Net's learning rate is nothing to E-Net."""
    config = replace(BASE, cycles=1)
    searches = []
    for lr in (0.08, 0.04):
        task = replace(config, search_weights=Sgd(lr=lr)).build(
            synthetic, seed=0, device=torch.device("cpu"), execution="share"
        )
        for index, epoch in list(enumerate(task.plan()))[:2]:
            task.start_epoch(index, epoch)
            for position, batch in enumerate(task.batches(index)):
                task.step(position, *batch)
        searches.append(task)
    assert different_parts(*searches) == {"search_net"}


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_plan_is_pretraining_then_cycles(synthetic: ImageData) -> None:
    config = replace(BASE, pretrain_epochs=2, cycles=2, warmup_epochs=2, joint_epochs=3)
    plan = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share").plan()
    cycle = ["warmup", "warmup", "joint", "joint", "joint"]
    assert [epoch.phase for epoch in plan] == ["pretrain", "pretrain", *cycle, *cycle]
    assert [epoch.cycle for epoch in plan] == [None] * 2 + [0] * 5 + [1] * 5
    assert [index for index, epoch in enumerate(plan) if epoch.opens_cycle] == [2, 7]
    # halves of 128 images
    assert {epoch.steps for epoch in plan} == {2}


def test_without_warmup_the_joint_epoch_opens_the_cycle(synthetic: ImageData) -> None:
    task = replace(BASE, warmup_epochs=0).build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    assert [(epoch.phase, epoch.opens_cycle) for epoch in task.plan()[1:]] == [("joint", True)] * 2


@pytest.mark.parametrize(
    ("decay", "expected"), [(None, [6.0] * 4), (1.0, [6.0, 4.5, 3.0, 1.5]), (0.5, [6.0, 3.0, 0, 0])]
)
def test_penalty_over_the_joint_epochs(decay: float | None, expected: list[float]) -> None:
    config = replace(BASE, l1_weight=6.0, l1_decay=decay)
    assert [l1_weight_at(config, epoch, 4) for epoch in range(4)] == pytest.approx(expected)


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = [
    ({"cycles": 0}, "--cycles 0: must be at least 1"),
    ({"joint_epochs": 0}, "--joint-epochs 0: must be at least 1"),
    ({"pretrain_epochs": -1}, "--pretrain-epochs -1: must be at least 0"),
    ({"warmup_epochs": -2}, "--warmup-epochs -2: must be at least 0"),
    ({"batch_size": 1}, "--batch-size 1: must be at least 2"),
    ({"batch_size": 129}, "choose at most 128"),
    ({"feedback_weight": -1.0}, "--feedback-weight -1.0: must be at least 0"),
    ({"feedback_weight": float("nan")}, "--feedback-weight nan: must be at least 0"),
    ({"l1_weight": -5.0}, "--l1-weight -5.0: must be at least 0"),
    ({"feedback_weight": float("inf")}, "--feedback-weight inf: must be at least 0 and finite"),
    ({"l1_weight": float("inf")}, "--l1-weight inf: must be at least 0 and finite"),
    ({"l1_scale": float("nan")}, "--l1-scale nan: must be at least 0 and finite"),
    ({"l1_scale": -1.0}, "--l1-scale -1.0: must be at least 0 and finite"),
    ({"temperature": float("inf")}, "--temperature inf: must be positive and finite"),
    ({"l1_decay": float("inf")}, "--l1-decay inf: must be positive and finite"),
    ({"search_weights": Sgd(lr=-1.0)}, "--search-weights.lr -1.0: must be positive"),
    ({"eval_weights": Sgd(lr=0.1, momentum=1.0)}, "--eval-weights.momentum 1.0: must be at least 0 and below 1"),
    ({"alpha": Adam(betas=(0.5, 1.0))}, "--alpha.betas 0.5 1.0: each must be at least 0 and below 1"),
    ({"temperature": 0.0}, "--temperature 0.0: must be positive"),
    ({"l1_decay": 0.0}, "--l1-decay 0.0: must be positive"),
    ({"l1_operations": ("skip_connect", "sep_conv_3x3")}, "--l1-operations sep_conv_3x3: not in space toy"),
    ({"feedback_levels": ()}, "choose from 0 to 1"),
    ({"feedback_levels": (0, 2)}, "--feedback-levels 0 2: choose from 0 to 1"),
    ({"feedback_levels": (-1,)}, "--feedback-levels -1: choose from 0 to 1"),
    ({"feedback_levels": (1, 1)}, "--feedback-levels 1 1: name each level once"),
    ({"space": DartsSpace(), "search_cells": 1}, "--search-cells 1 makes 1 reductions, --eval-cells 3 makes 2"),
    ({"channels": 5}, "channels 5: must be a positive even number"),
    ({"search_cells": 0}, "cells 0: a network needs at least 1"),
    ({"detach_teacher": True}, "nothing would teach E-Net's embedding modules"),
    ({"prior_only": True, "l1_weight": 0.0}, "--prior-only: alpha has no regulariser to follow"),
    ({"sharpness": math.nan}, "--sharpness nan: must be at least 1"),
    ({"sharpness": 0.5}, "--sharpness 0.5: must be at least 1"),
    ({"teaching_weight": -1.0}, "--teaching-weight -1.0: must be at least 0"),
    ({"head_supervision": True, "train_embeddings": False}, "--head-supervision needs --train-embeddings"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(synthetic: ImageData, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        replace(BASE, **changes).build(synthetic, seed=0, device=torch.device("cpu"), execution="share")


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 128},
        {"detach_teacher": True, "head_supervision": True},
        {"detach_teacher": True, "train_embeddings": False},
        # the student's side teaches the modules that both share
        {"detach_teacher": True, "shared_embeddings": True},
        # the final logits alone need no embedding modules
        {"detach_teacher": True, "feedback_levels": (1,)},
        {"detach_teacher": True, "feedback_weight": 0.0},
        # without feedback the networks do not meet: no stages to compare, no levels to choose
        {"space": DartsSpace(), "search_cells": 1, "feedback_weight": 0.0},
        {"feedback_levels": (0, 7), "feedback_weight": 0.0},
    ],
    ids=str,
)
def test_accepted(synthetic: ImageData, changes: dict[str, Any]) -> None:
    replace(BASE, **changes).check(synthetic)


def test_refused_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["search", "smoke", "--search-weights.clip-norm", "-5", "--out", str(out)]) == 2
    assert "--search-weights.clip-norm -5.0: must be positive" in capsys.readouterr().err
    assert not out.exists()


def test_odd_numbers_of_images_make_halves_that_the_check_knows(synthetic: ImageData) -> None:
    data = replace(synthetic, train=synthetic.train.take(np.arange(255)))
    replace(BASE, batch_size=127).build(data, seed=0, device=torch.device("cpu"), execution="share")
    with pytest.raises(ConfigurationError, match="choose at most 127"):
        replace(BASE, batch_size=128).check(data)


# -- as JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_json_round_trip(case: Case) -> None:
    config = replace(case.base, **{case.field: case.value})
    written = json.loads(json.dumps(to_json(config)))
    assert from_json(CyclicConfig, written, "config.json") == config


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"cycels": 3}, "cycels"),
        ({"cycles": "3"}, "cycles"),
        ({"cycles": 3.5}, "cycles"),
        ({"temperature": "hot"}, "temperature"),
        ({"feedback": "hinge"}, "feedback"),
        ({"fusion": "product"}, "fusion"),
        ({"warmup_half": "test"}, "warmup_half"),
        ({"feedback_levels": ["first"]}, "feedback_levels"),
        ({"space": {"name": "chain"}}, "space"),
        ({"alpha": {"lr": 0.1, "momentum": 0.9}}, "alpha"),
        ({"name": "darts"}, "name"),
    ],
)
def test_json_is_read_strictly(changes: dict[str, Any], at: str) -> None:
    with pytest.raises(ConfigurationError, match=f"config.json: {at}"):
        from_json(CyclicConfig, {**to_json(BASE), **changes}, "config.json")


def test_registry_knows_the_algorithm_by_its_name() -> None:
    assert ALGORITHMS["cdarts"] is CyclicConfig
    assert all(kind.name == name for name, kind in ALGORITHMS.items())


# -- the document ------------------------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
ROWS = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `([\w.]+)` \|(.*)\|$", DOCUMENT, flags=re.MULTILINE)
}


def test_every_field_has_its_row() -> None:
    fields = {field.name for field in dataclasses.fields(CyclicConfig)} - ELSEWHERE
    expected = {name for name in fields if name not in ("search_weights", "eval_weights", "alpha")}
    for name in ("search_weights", "eval_weights", "alpha"):
        kind = Adam if name == "alpha" else Sgd
        expected |= {f"{name}.{field.name}" for field in dataclasses.fields(kind)}
    assert set(ROWS) == expected


def test_every_row_says_what_the_paper_the_authors_nni_and_we_do_and_why() -> None:
    for name, cells in ROWS.items():
        assert len(cells) == 5, name
        assert all(cells), name


@pytest.mark.parametrize(("preset", "column"), [("cdarts-paper", 0), ("cdarts-official", 1), ("cdarts", 3)])
def test_values_in_the_document_are_those_of_the_presets(preset: str, column: int) -> None:
    """A cell begins with the preset's value in backticks."""
    for name, cells in ROWS.items():
        value: Any = PRESETS[preset]
        for part in name.split("."):
            value = getattr(value, part)
        written = re.match(r"`([^`]*)`", cells[column])
        assert written is not None, f"{name}: {cells[column]}"
        assert written[1] == text_of(value), f"{name}: {cells[column]}"


def text_of(value: Any) -> str:
    match value:
        case DartsSpace():
            return value.name
        case tuple():
            return " ".join(text_of(item) for item in value)
        case bool() | None:
            return {True: "yes", False: "no", None: "none"}[value]
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)
