"""The cyclic search, against the paper's and the authors' step written by hand, and what it must hold."""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.algorithms import CyclicConfig
from cdarts.algorithms.cyclic import CyclicSearch, l1_weight_at
from cdarts.data import Augmentation, Batch, ImageData, Images, load
from cdarts.distillation import FEEDBACKS
from cdarts.engine import checkpoint
from cdarts.engine.descent import descend
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.presets import OFFICIAL, OFFICIAL_NASBENCH201, PAPER, PAPER_NASBENCH201, PRESETS
from cdarts.spaces import DartsSpace, NasBench201Space, ToySpace
from cdarts.topology import Choice, Genotype

CPU = torch.device("cpu")

TOY = CyclicConfig(
    space=ToySpace(),
    channels=4,
    search_cells=3,
    eval_cells=3,
    batch_size=64,
    pretrain_epochs=1,
    cycles=3,
    feedback_levels=(0, 1),
)
"""The paper's algorithm in a space that a step takes milliseconds in."""

SMALL: dict[str, int] = {"channels": 4, "search_cells": 3, "eval_cells": 5}
"""Replaces the sizes of a preset of the DARTS space."""


def random_images(count: int, side: int, channels: int, classes: int) -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    images = Images(pixels, np.arange(count, dtype=np.int64) % classes)
    names = tuple(f"class {label}" for label in range(classes))
    return ImageData("random", images, images, names, (0.5,) * channels, (0.25,) * channels, Augmentation())


@pytest.fixture(scope="module")
def cifar_shaped() -> ImageData:
    return random_images(40, side=32, channels=3, classes=10)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: CyclicConfig, data: ImageData, seed: int = 0) -> CyclicSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def at_first(phase: str, task: CyclicSearch) -> tuple[Batch, ...]:
    """Go to the first epoch of a phase; its first batch. A cycle that it opens is opened."""
    index, epoch = next((index, epoch) for index, epoch in enumerate(task.plan()) if epoch.phase == phase)
    task.start_epoch(index, epoch)
    return next(task.batches(index))


def walk(task: CyclicSearch, start: int = 0, stop: int | None = None) -> None:
    """Train the epochs from `start` to before `stop`, as the engine's loop does."""
    for index, epoch in list(enumerate(task.plan()))[start:stop]:
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested state, by its place."""
    match value:
        case Mapping():
            for name, item in value.items():
                yield from flat(item, f"{place}/{name}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from flat(item, f"{place}/{index}")
        case _:
            yield place, value


def assert_same_state(one: CyclicSearch, other: CyclicSearch) -> None:
    first, second = dict(flat(one.state())), dict(flat(other.state()))
    assert first.keys() == second.keys()
    for place, value in first.items():
        same = torch.equal(value, second[place]) if isinstance(value, Tensor) else value == second[place]
        assert same, place


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(module: nn.Module, before: Mapping[str, Tensor]) -> set[str]:
    """Names of the parameters whose bits differ from before."""
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


Pair = tuple[CyclicSearch, CyclicSearch, Iterator[tuple[Batch, ...]]]


def side_by_side(config: CyclicConfig, data: ImageData) -> Pair:
    """Two equal searches at their first joint epoch, and its batches."""
    task, hand = build(config, data), build(config, data)
    index, epoch = next((index, epoch) for index, epoch in enumerate(task.plan()) if epoch.phase == "joint")
    for search in (task, hand):
        search.start_epoch(index, epoch)
    return task, hand, task.batches(index)


def in_float64(search: CyclicSearch) -> None:
    """Everything in float64, where the order of sums does not show after a few steps as it does in float32."""
    search.level_scalars.data = search.level_scalars.data.double()
    for module in search._modules().values():
        module.double()
    for network in (search.search_net, search.eval_net):
        network.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(), *arguments[1:]))


def values(search: CyclicSearch) -> dict[str, Tensor]:
    """Every parameter of a search by its place."""
    parameters = {
        f"{at}.{name}": p for at, module in search._modules().items() for name, p in module.named_parameters()
    }
    return {name: p.detach().clone() for name, p in {**parameters, "level_scalars": search.level_scalars}.items()}


def largest_error(before: Mapping[str, Tensor], task: CyclicSearch, hand: CyclicSearch) -> float:
    """Over all parameters, the norm of the difference of the two steps in units of the step's norm.

    What the hand-written step leaves alone must be the same to the bit.
    """
    errors = [0.0]
    for (name, value), expected in zip(values(task).items(), values(hand).values(), strict=True):
        step = (expected - before[name]).norm().item()
        if step == 0:
            assert torch.equal(value, expected), name
        else:
            errors.append((value - expected).norm().item() / step)
    return max(errors)


# -- the authors' step, by hand ----------------------------------------------------------------------------------------


@dataclass
class OfficialByHand:
    """Section 5 of the authors' procedure in plain torch, on the modules of a search that is not stepped itself."""

    task: CyclicSearch

    def __post_init__(self) -> None:
        task = self.task
        shared = [*task.search_net.stem.parameters(), task.level_scalars]
        cells = [parameter for name, parameter in task.eval_net.named_parameters() if not name.startswith("stem.")]
        self.sgd_e = torch.optim.SGD([*shared, *cells], 0.08, 0.9, weight_decay=3e-4)
        self.sgd_s = torch.optim.SGD(task.search_net.parameters(), 0.08, 0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(task.relaxation.parameters(), 3e-4, (0.5, 0.999))
        self.everything = {
            *task.search_net.parameters(),
            *task.eval_net.parameters(),
            *task.relaxation.parameters(),
            task.level_scalars,
        }

    def weights(self) -> dict[str, Tensor]:
        """Softmax over operations, mean over the 2, 3, 4 and 5 edges into a node."""
        shares = 1 / torch.tensor([2.0] * 2 + [3.0] * 3 + [4.0] * 4 + [5.0] * 5)[:, None]
        return {kind: alpha.softmax(1) * shares for kind, alpha in self.task.relaxation.alpha.items()}

    def fused(self, logits: Tensor, features: list[Tensor]) -> Tensor:
        heads = [embed(x) for embed, x in zip(self.task.search_embeddings, features, strict=True)]
        weights = self.task.level_scalars.softmax(0)
        return torch.cat([weight * level for weight, level in zip(weights, [*heads, logits], strict=True)])

    def zero_grad(self) -> None:
        for parameter in self.everything:
            parameter.grad = None

    def joint_step(self, train: Batch, val: Batch, coefficient: float) -> None:
        task = self.task
        images, labels = val
        search = task.search_net(images, self.weights())
        evaluation = task.eval_net(images)
        distance = F.smooth_l1_loss(
            self.fused(search.logits, search.features), self.fused(evaluation.logits, evaluation.features)
        )
        loss = F.cross_entropy(search.logits, labels) + F.cross_entropy(evaluation.logits, labels)
        loss = loss + 4 * distance
        for alpha in task.relaxation.alpha.values():
            # max-pool, avg-pool and skip are the first three; one term for each of three stages
            loss = loss + 3 * coefficient * alpha[:, :3].abs().sum()
        self.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.everything, 5.0)
        self.sgd_e.step()
        self.adam.step()

        self.zero_grad()
        mixing = {kind: weight.detach() for kind, weight in self.weights().items()}
        images, labels = train
        F.cross_entropy(task.search_net(images, mixing).logits, labels).backward()
        nn.utils.clip_grad_norm_(task.search_net.parameters(), 5.0)
        self.sgd_s.step()
        self.zero_grad()


def test_official_joint_step_is_the_authors_at_real_sizes(cifar_shaped: ImageData) -> None:
    task, hand, batches = side_by_side(replace(OFFICIAL, batch_size=4), cifar_shaped)
    before = values(task)
    train, val = next(batches)
    task.step(0, train, val)
    OfficialByHand(hand).joint_step(train, val, coefficient=5.0)
    # float32: deep in S-Net, whose gradient is clipped small, rounding alone makes a percent
    assert largest_error(before, task, hand) < 5e-2


def test_official_joint_steps_are_the_authors_in_float64(synthetic: ImageData) -> None:
    task, hand, batches = side_by_side(replace(OFFICIAL, batch_size=8, **SMALL), synthetic)
    in_float64(task)
    in_float64(hand)
    before = values(task)
    by_hand = OfficialByHand(hand)
    for position, (train, val) in zip(range(3), batches, strict=False):
        task.step(position, train, val)
        by_hand.joint_step(train, val, coefficient=5.0)
    assert largest_error(before, task, hand) < 1e-10


def test_official_at_its_real_sizes(cifar_shaped: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(replace(OFFICIAL, batch_size=4), cifar_shaped)
    assert (len(task.search_net.layout), len(task.eval_net.layout), task.search_net.layout[0].channels) == (8, 20, 16)
    assert task.num_parameters()["search_net"] == 1_930_618
    assert {kind: tuple(alpha.shape) for kind, alpha in task.relaxation.alpha.items()} == {
        "normal": (14, 8),
        "reduce": (14, 8),
    }
    inputs: list[tuple[int, ...]] = []
    for embed in task.search_embeddings:
        embed.register_forward_pre_hook(lambda _, arguments: inputs.append(tuple(arguments[0].shape)))
    compared: list[tuple[int, ...]] = []

    def recorded(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        compared.extend([tuple(student.shape), tuple(teacher.shape)])
        return smooth_l1(student, teacher, temperature)

    smooth_l1 = FEEDBACKS["smooth_l1"]
    monkeypatch.setitem(FEEDBACKS, "smooth_l1", recorded)
    task.step(0, *at_first("joint", task))
    # both networks pass the same two heads
    assert sorted(inputs) == [(4, 128, 16, 16)] * 2 + [(4, 256, 8, 8)] * 2
    assert compared == [(12, 10), (12, 10)]


def test_official_penalty_has_gradient_norm_137(cifar_shaped: ImageData) -> None:
    task = build(replace(OFFICIAL, batch_size=4), cifar_shaped)
    at_first("joint", task)
    gradients = torch.autograd.grad(task.l1_weight * task.skip_penalty(), list(task.relaxation.parameters()))
    assert torch.cat(gradients).norm().item() == pytest.approx(137.48, abs=0.005)


def test_official_penalty_decays_to_zero_at_the_21st_joint_epoch(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL, **SMALL), synthetic)
    weights = []
    for index, epoch in enumerate(task.plan()):
        if epoch.phase == "joint":
            task.start_epoch(index, epoch)
            weights.append(task.l1_weight)
    assert len(weights) == 30
    assert weights[0] == 5.0
    assert weights[20] == pytest.approx(0.0025, abs=2e-6)
    assert weights[21:] == [0.0] * 9


def test_official_penalty_of_nasbench201_decays_to_zero_at_the_34th_joint_epoch() -> None:
    weights = [l1_weight_at(OFFICIAL_NASBENCH201, epoch, 50) for epoch in range(50)]
    assert weights[33] > 0
    assert weights[34:] == [0.0] * 16


def test_joint_step_goes_in_the_authors_order(synthetic: ImageData) -> None:
    """First alpha and w_E on the val half, w_E stepping before alpha; then w_S on the train half."""
    task = build(replace(OFFICIAL, **SMALL), synthetic)
    train, val = at_first("joint", task)
    half = {train.images.data_ptr(): "train", val.images.data_ptr(): "val"}
    events: list[tuple[str, str]] = []

    def forward(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, arguments: events.append((name, half[arguments[0].data_ptr()]))

    def stepping(name: str) -> Callable[[torch.optim.Optimizer, Any, Any], None]:
        return lambda *_: events.append((name, "steps"))

    task.search_net.register_forward_pre_hook(forward("search_net"))
    task.eval_net.register_forward_pre_hook(forward("eval_net"))
    task.eval_optimizer.optimizer.register_step_pre_hook(stepping("eval_optimizer"))
    task.alpha_optimizer.optimizer.register_step_pre_hook(stepping("alpha_optimizer"))
    task.search_optimizer.optimizer.register_step_pre_hook(stepping("search_optimizer"))
    task.step(0, train, val)
    assert events == [
        ("search_net", "val"),
        ("eval_net", "val"),
        ("eval_optimizer", "steps"),
        ("alpha_optimizer", "steps"),
        ("search_net", "train"),
        ("search_optimizer", "steps"),
    ]


def test_halves_of_25_000_images_make_391_steps() -> None:
    config = replace(OFFICIAL, space=ToySpace(), channels=2, search_cells=2, eval_cells=2, feedback_levels=(0, 1))
    task = build(
        replace(config, l1_operations=("skip_connect",)), random_images(50_000, side=8, channels=1, classes=10)
    )
    plan = task.plan()
    assert [epoch.phase for epoch in plan] == ["pretrain"] * 2 + ["warmup", "joint"] * 30
    assert {epoch.steps for epoch in plan} == {391}
    sizes = []
    task.start_epoch(3, plan[3])
    for train, val in task.batches(3):
        assert len(train.labels) == len(val.labels)
        sizes.append(len(train.labels))
    assert sizes == [64] * 390 + [40]


def test_learning_rates_stay_or_follow_a_cosine(synthetic: ImageData) -> None:
    rates: dict[str, list[float]] = {}
    alphas: dict[str, list[float]] = {}
    for name in ("cdarts-official", "cdarts"):
        task = build(replace(PRESETS[name], **SMALL, cycles=4), synthetic)
        rates[name], alphas[name] = [], []
        for index, epoch in enumerate(task.plan()):
            task.start_epoch(index, epoch)
            for optimizer in (task.search_optimizer, task.eval_optimizer):
                rates[name].append(optimizer.optimizer.param_groups[0]["lr"])
            alphas[name].append(task.alpha_optimizer.optimizer.param_groups[0]["lr"])
    assert set(rates["cdarts-official"]) == {0.08}
    assert set(alphas["cdarts-official"]) == {3e-4}
    assert alphas["cdarts"][0] == 3e-4
    assert alphas["cdarts"][-1] == pytest.approx(3e-4 * (0.1 + 0.9 * 0.5 * (1 + np.cos(0.9 * np.pi))))
    assert rates["cdarts"][0] == 0.08
    assert rates["cdarts"] == sorted(rates["cdarts"], reverse=True)
    # the last of ten epochs: nine tenths along half a cosine
    assert rates["cdarts"][-1] == pytest.approx(0.08 * 0.5 * (1 + np.cos(0.9 * np.pi)))


def test_official_stem_is_shared_and_both_weight_steps_move_it(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL, **SMALL), synthetic)
    train, val = at_first("joint", task)
    assert task.eval_net.stem is task.search_net.stem
    for step, batch in ((task.search_weight_step, train), (task.evaluation_weight_step, val)):
        before = copied(task.search_net.stem)
        step(batch)
        assert moved(task.search_net.stem, before) == {"conv.weight", "norm.weight", "norm.bias"}


def test_paper_has_stems_and_embeddings_of_its_own(synthetic: ImageData) -> None:
    task = build(replace(PAPER, **SMALL), synthetic)
    assert not {*task.eval_net.parameters()} & {*task.search_net.parameters()}
    assert not {*task.eval_embeddings.parameters()} & {*task.search_embeddings.parameters()}


@pytest.mark.parametrize(
    ("config", "learned"),
    [
        (replace(OFFICIAL, **SMALL), False),
        (replace(OFFICIAL_NASBENCH201, channels=4, search_cells=3, eval_cells=3), True),
    ],
    ids=["CIFAR", "NAS-Bench-201"],
)
def test_official_architecture_step_moves_what_the_networks_share(
    synthetic: ImageData, config: CyclicConfig, learned: bool
) -> None:
    task = build(config, synthetic)
    _, val = at_first("joint", task)
    search, heads = copied(task.search_net), copied(task.search_embeddings)
    scalars = task.level_scalars.detach().clone()
    task.architecture_step(val)
    assert moved(task.search_net, search) == {"stem.conv.weight", "stem.norm.weight", "stem.norm.bias"}
    assert moved(task.search_embeddings, heads) == (set(heads) if learned else set())
    assert not torch.equal(task.level_scalars, scalars)


def test_official_makes_its_optimizers_anew_each_cycle(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL, **SMALL, cycles=2), synthetic)
    walk(task, 0, 4)
    optimizers = (task.search_optimizer, task.eval_optimizer, task.alpha_optimizer)
    assert all(optimizer.state() for optimizer in optimizers)
    task.start_epoch(4, task.plan()[4])
    for old, new in zip(optimizers, (task.search_optimizer, task.eval_optimizer, task.alpha_optimizer), strict=True):
        assert new is not old
        assert new.state() == {}


def test_official_inherits_parameters_but_no_batchnorm(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL, **SMALL, cycles=2), synthetic)
    walk(task, 0, 4)
    before = {name: tensor.clone() for name, tensor in task.eval_net.state_dict().items()}
    task.transfer_topology(task.topology, cycle=1)
    after = task.eval_net.state_dict()
    statistics = [name for name in before if "running" in name and not name.startswith("stem.")]
    assert statistics
    for name in statistics:
        assert not torch.equal(before[name], after[name]), name
        assert torch.equal(after[name], torch.full_like(after[name], float("running_var" in name))), name
    for name, _ in task.eval_net.named_parameters():
        assert torch.equal(before[name], after[name]), name
    # the stem is one module that is never rebuilt
    assert torch.equal(before["stem.norm.running_mean"], after["stem.norm.running_mean"])


def test_official_nasbench201_loses_batchnorm_weights_of_cells_only(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL_NASBENCH201, channels=4, search_cells=3, eval_cells=3), synthetic)
    edges = task.config.space.all_edges()
    task.transfer_topology(
        Genotype("nasbench201", {"cell": tuple(Choice(edge, "nor_conv_3x3") for edge in edges)}), cycle=0
    )
    for tensor in task.eval_net.state_dict().values():
        tensor.fill_(0.5)
    task.transfer_topology(task.topology, cycle=1)
    lost = {name for name, parameter in task.eval_net.named_parameters() if not (parameter == 0.5).all()}
    weights = ("weight", "bias")
    assert lost == {
        f"cells.{cell}.edges.{e}.nor_conv_3x3.norm.{w}" for cell in range(3) for e in edges for w in weights
    }
    kept = {name for name, buffer in task.eval_net.named_buffers() if (buffer == 0.5).any()}
    assert kept == {"stem.norm.running_mean", "stem.norm.running_var"}


def test_official_nasbench201_penalises_the_mean_logit_of_none(synthetic: ImageData) -> None:
    task = build(replace(OFFICIAL_NASBENCH201, channels=4, search_cells=3, eval_cells=3), synthetic)
    expected = task.relaxation.alpha["cell"][:, 0].abs().mean()
    torch.testing.assert_close(task.skip_penalty(), expected)


# -- the paper's step, by hand -----------------------------------------------------------------------------------------


class PaperByHand:
    """Eq. 3 to 6 in plain torch, on the modules of a search that is not stepped itself."""

    def __init__(self, task: CyclicSearch) -> None:
        self.task = task
        modules = (task.eval_net, task.eval_embeddings, task.search_embeddings)
        self.w_e = [parameter for module in modules for parameter in module.parameters()]
        self.sgd_e = torch.optim.SGD(self.w_e, 0.08, 0.9, weight_decay=3e-4)
        self.sgd_s = torch.optim.SGD(task.search_net.parameters(), 0.08, 0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(task.relaxation.parameters(), 3e-4, (0.5, 0.999))

    def weights(self) -> dict[str, Tensor]:
        return {kind: alpha.softmax(1) for kind, alpha in self.task.relaxation.alpha.items()}

    def summed(self, embeddings: nn.ModuleList, logits: Tensor, features: list[Tensor]) -> Tensor:
        first, second = (embed(x) for embed, x in zip(embeddings, features, strict=True))
        return first + second + logits

    def joint_step(self, train: Batch, val: Batch) -> None:
        task = self.task
        images, labels = val
        search = task.search_net(images, self.weights())
        evaluation = task.eval_net(images)
        p = (self.summed(task.eval_embeddings, evaluation.logits, evaluation.features) / 2).softmax(1)
        q = (self.summed(task.search_embeddings, search.logits, search.features) / 2).softmax(1)
        loss = F.cross_entropy(search.logits, labels) + F.cross_entropy(evaluation.logits, labels)
        loss = loss + 4 / len(labels) * (p * (p / q).log()).sum()
        skip = DartsSpace.operations.index("skip_connect")
        for alpha in task.relaxation.alpha.values():
            loss = loss + 5.0 * alpha[:, skip].abs().sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.w_e, 5.0)
        self.sgd_e.step()
        self.adam.step()

        for module in (*task._modules().values(), task.relaxation):
            module.zero_grad()
        images, labels = train
        F.cross_entropy(task.search_net(images, self.weights()).logits, labels).backward()
        nn.utils.clip_grad_norm_(task.search_net.parameters(), 5.0)
        self.sgd_s.step()
        for module in (*task._modules().values(), task.relaxation):
            module.zero_grad()


def test_paper_joint_step_is_equations_3_to_6_at_real_sizes(cifar_shaped: ImageData) -> None:
    task, hand, batches = side_by_side(replace(PAPER, batch_size=4), cifar_shaped)
    before = values(task)
    train, val = next(batches)
    task.step(0, train, val)
    PaperByHand(hand).joint_step(train, val)
    assert largest_error(before, task, hand) < 1e-2


def test_paper_joint_steps_are_equations_3_to_6_in_float64(synthetic: ImageData) -> None:
    task, hand, batches = side_by_side(replace(PAPER, batch_size=8, **SMALL), synthetic)
    in_float64(task)
    in_float64(hand)
    before = values(task)
    by_hand = PaperByHand(hand)
    for position, (train, val) in zip(range(3), batches, strict=False):
        task.step(position, train, val)
        by_hand.joint_step(train, val)
    assert largest_error(before, task, hand) < 1e-10


def test_paper_architecture_step_moves_alpha_and_eval_weights_alone(synthetic: ImageData) -> None:
    task = build(replace(PAPER, **SMALL), synthetic)
    _, val = at_first("joint", task)
    before = {name: copied(module) for name, module in task._modules().items()}
    task.architecture_step(val)
    changed = {name: moved(module, before[name]) for name, module in task._modules().items()}
    assert changed.pop("search_net") == set()
    assert changed == {name: set(before[name]) for name in changed}
    # nothing is left that a later step could add to
    assert all(p.grad is None for module in task._modules().values() for p in module.parameters())


@pytest.mark.parametrize("config", [PAPER, PAPER_NASBENCH201], ids=["DARTS", "NAS-Bench-201"])
def test_paper_penalty_pulls_on_skip_connections_only(synthetic: ImageData, config: CyclicConfig) -> None:
    task = build(replace(config, channels=4, search_cells=3, eval_cells=3), synthetic)
    skip = config.space.operations.index("skip_connect")
    for alpha in task.relaxation.alpha.values():
        (gradient,) = torch.autograd.grad(task.skip_penalty(), alpha)
        expected = torch.zeros_like(alpha)
        expected[:, skip] = alpha[:, skip].sign()
        assert torch.equal(gradient, expected)


def test_paper_warms_up_only_where_the_topology_changed(synthetic: ImageData) -> None:
    task = build(replace(TOY, warmup_unchanged=False), synthetic)
    first, second, third = (index for index, epoch in enumerate(task.plan()) if epoch.opens_cycle)
    task.start_epoch(first, task.plan()[first])
    assert len(list(task.batches(first))) == 2
    task.start_epoch(second, task.plan()[second])
    assert list(task.batches(second)) == []
    # another topology: now there is something to warm up
    with torch.no_grad():
        task.relaxation.alpha["cell"].neg_()
    task.start_epoch(third, task.plan()[third])
    assert len(list(task.batches(third))) == 2


# -- what every configuration must hold --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, config in PRESETS.items() if isinstance(config, CyclicConfig)])
def test_weight_steps_leave_the_bits_of_alpha(synthetic: ImageData, name: str) -> None:
    task = build(replace(PRESETS[name], channels=4, search_cells=3, eval_cells=3, batch_size=16), synthetic)
    train, val = at_first("joint", task)
    before = copied(task.relaxation)
    task.search_weight_step(train)
    task.evaluation_weight_step(val)
    assert moved(task.relaxation, before) == set()
    task.architecture_step(val)
    assert moved(task.relaxation, before) == set(before)


def test_weight_steps_move_their_own_network_alone(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    train, val = at_first("joint", task)
    for step, batch, own, other in (
        (task.search_weight_step, train, task.search_net, task.eval_net),
        (task.evaluation_weight_step, val, task.eval_net, task.search_net),
    ):
        before, beside = copied(own), copied(other)
        step(batch)
        assert moved(own, before)
        assert moved(other, beside) == set()


def test_one_way_teacher_is_not_taught(synthetic: ImageData) -> None:
    """With a detached teacher and frozen modules, E-Net's step is the one without any feedback; alpha's is not."""
    frozen = replace(TOY, train_embeddings=False, l1_weight=0.0)
    tasks = {
        "one way": build(replace(frozen, detach_teacher=True), synthetic),
        "both ways": build(frozen, synthetic),
        "none": build(replace(frozen, feedback_weight=0.0), synthetic),
    }
    for task in tasks.values():
        task.architecture_step(at_first("joint", task)[1])
    reference = copied(tasks["none"].eval_net)
    alpha = copied(tasks["none"].relaxation)
    assert moved(tasks["one way"].eval_net, reference) == set()
    assert moved(tasks["both ways"].eval_net, reference)
    assert moved(tasks["one way"].relaxation, alpha)


def test_head_supervision_teaches_eval_heads_by_labels(synthetic: ImageData) -> None:
    """Without it a detached teacher's heads would have no gradient; with it cross-entropy gives them one."""
    config = replace(
        TOY, detach_teacher=True, head_supervision=True, eval_weights=Sgd(lr=0.1, momentum=0.0, weight_decay=0.0)
    )
    task = build(config, synthetic)
    _, val = at_first("joint", task)
    features = task.eval_net(val.images).features
    loss = F.cross_entropy(task.eval_embeddings[0](features[0]), val.labels)
    parameters = dict(task.eval_embeddings.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    before = copied(task.eval_embeddings)
    task.architecture_step(val)
    steps = {name: before[name] - parameter for name, parameter in task.eval_embeddings.named_parameters()}
    scales = [(steps[name].norm() / gradient.norm()).item() for name, gradient in gradients.items()]
    assert scales == pytest.approx([scales[0]] * len(scales), rel=1e-3)
    for name, gradient in gradients.items():
        torch.testing.assert_close(steps[name], scales[0] * gradient, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("detach_teacher", [True, False])
def test_head_supervision_spares_a_detached_teacher(synthetic: ImageData, detach_teacher: bool) -> None:
    """The heads read detached features: E-Net's step is the one without any feedback, while the heads learn."""
    config = replace(
        TOY,
        detach_teacher=detach_teacher,
        head_supervision=True,
        # one norm over E-Net and its heads would let the heads scale E-Net's step
        eval_weights=Sgd(lr=0.08, clip_norm=None),
    )
    task, reference = build(config, synthetic), build(replace(config, feedback_weight=0.0), synthetic)
    heads = copied(task.eval_embeddings)
    for search in (task, reference):
        search.architecture_step(at_first("joint", search)[1])
    assert moved(task.eval_embeddings, heads) == set(heads)
    assert (moved(task.eval_net, copied(reference.eval_net)) == set()) == detach_teacher


def test_losses_leave_no_graph_behind(synthetic: ImageData) -> None:
    """A loop may keep the losses of an epoch without keeping the activations of its steps."""
    task = build(replace(TOY, detach_teacher=True, head_supervision=True, level_weights=True), synthetic)
    seen = set()
    for phase in ("pretrain", "warmup", "joint"):
        losses = task.step(0, *at_first(phase, task))
        seen |= losses.keys()
        for name, loss in losses.items():
            assert loss.grad_fn is None and not loss.requires_grad, name
    assert seen == {
        *("search_loss", "search_accuracy", "search_val_loss", "search_val_accuracy", "eval_loss", "eval_accuracy"),
        *("feedback", "head_loss", "l1"),
    }


def test_without_feedback_there_are_no_embedding_modules(synthetic: ImageData) -> None:
    task = build(replace(TOY, feedback_weight=0.0), synthetic)
    assert list(task.search_embeddings.parameters()) == list(task.eval_embeddings.parameters()) == []
    assert {name.split(".")[0] for name in task.eval_optimizer.named} == {"eval_net"}
    assert "feedback" not in task.step(0, *at_first("joint", task))


# -- topology transfer -------------------------------------------------------------------------------------------------


def toy_genotype(*operations: str) -> Genotype:
    edges = ToySpace().all_edges()
    return Genotype("toy", {"cell": tuple(Choice(edge, name) for edge, name in zip(edges, operations, strict=True))})


A = toy_genotype("nor_conv_3x3", "skip_connect", "nor_conv_3x3")
B = toy_genotype("skip_connect", "nor_conv_3x3", "nor_conv_3x3")


def learn(task: CyclicSearch, epoch: int) -> None:
    for batch in task.val(epoch):
        task.evaluation_weight_step(batch)


def test_operations_met_again_keep_weights_statistics_and_momentum(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    task.transfer_topology(A, cycle=0)
    learn(task, 0)
    tensors = {name: tensor.clone() for name, tensor in task.eval_net.state_dict().items()}
    momentum = {name: state["momentum_buffer"].clone() for name, state in task.eval_optimizer.state().items()}
    task.transfer_topology(B, cycle=1)
    common = tensors.keys() & task.eval_net.state_dict().keys()
    assert {"cells.0.edges.1-2.nor_conv_3x3.conv.weight", "classifier.weight", "stem.conv.weight"} <= common
    assert all(torch.equal(tensors[name], task.eval_net.state_dict()[name]) for name in common)
    learn(task, 1)
    left = {name: tensor.clone() for name, tensor in task.eval_net.state_dict().items()}
    left_momentum = {name: state["momentum_buffer"].clone() for name, state in task.eval_optimizer.state().items()}
    task.transfer_topology(A, cycle=2)

    only_a = tensors.keys() - left.keys()
    assert only_a
    assert {name.split(".")[3] for name in only_a} == {"0-1", "0-2"}
    for name, tensor in task.eval_net.state_dict().items():
        # what B had too has learned on; what only A has is as A left it
        assert torch.equal(tensor, left.get(name, tensors[name])), name
    for name, state in task.eval_optimizer.state().items():
        assert torch.equal(state["momentum_buffer"], left_momentum.get(name, momentum.get(name))), name
    assert momentum.keys() <= task.eval_optimizer.state().keys()


def test_identity_edge_does_not_stop_inheritance(synthetic: ImageData) -> None:
    """The authors' copy breaks off at a node's identity edge; here the edge behind it inherits too."""
    task = build(replace(OFFICIAL, **SMALL), synthetic)
    rows = {kind: torch.zeros_like(alpha) for kind, alpha in task.relaxation.alpha.items()}
    skip, sep = (DartsSpace.operations.index(name) for name in ("skip_connect", "sep_conv_3x3"))
    rows["normal"][0::2, sep] = 1.0
    rows["normal"][1::2, skip] = 2.0
    genotype = task.config.space.derive({kind: row.tolist() for kind, row in rows.items()})
    task.transfer_topology(genotype, cycle=0)
    for parameter in task.eval_net.parameters():
        parameter.data.fill_(0.25)
    task.transfer_topology(genotype, cycle=1)
    assert any("sep_conv_3x3" in name for name, _ in task.eval_net.named_parameters())
    assert all((parameter == 0.25).all() for parameter in task.eval_net.parameters())


def test_without_inheritance_weights_and_momentum_begin_anew(synthetic: ImageData) -> None:
    task = build(replace(TOY, inherit_weights=False), synthetic)
    walk(task, 0, 3)
    before = copied(task.eval_net)
    embeddings = copied(task.eval_embeddings)
    task.transfer_topology(task.topology, cycle=1)
    assert {name for name in moved(task.eval_net, before) if name.endswith("conv.weight")} == {
        name for name in before if name.endswith("conv.weight")
    }
    assert moved(task.eval_embeddings, embeddings) == set()
    # the embedding modules live on, and with them their momentum
    assert {name.split(".")[0] for name in task.eval_optimizer.state()} == {"eval_embeddings", "search_embeddings"}


def test_e_net_that_inherits_nothing_warms_up_in_every_cycle(synthetic: ImageData) -> None:
    """Its topology is that of the cycle before, and yet it is new."""
    task = build(replace(TOY, inherit_weights=False, warmup_unchanged=False), synthetic)
    opening = [(index, epoch) for index, epoch in enumerate(task.plan()) if epoch.opens_cycle]
    topologies = set()
    for index, epoch in opening:
        task.start_epoch(index, epoch)
        topologies.add(task.topology)
        assert epoch.phase == "warmup"
        assert len(list(task.batches(index))) == epoch.steps > 0
    assert (len(opening), len(topologies)) == (3, 1)


def test_topology_stays_for_all_joint_epochs_of_a_cycle(synthetic: ImageData) -> None:
    task = build(replace(TOY, joint_epochs=2, alpha=Adam(lr=1.0)), synthetic)
    topologies = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        topologies.append((epoch.cycle, task.topology))
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
    by_cycle = [{topology for cycle, topology in topologies if cycle == number} for number in range(3)]
    assert [len(seen) for seen in by_cycle] == [1, 1, 1]
    assert by_cycle[0] != by_cycle[1] or by_cycle[1] != by_cycle[2]


def test_e_net_follows_alpha_into_the_next_cycle(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    openings = [(index, epoch) for index, epoch in enumerate(task.plan()) if epoch.opens_cycle]
    for (index, epoch), wanted in zip(openings, (A, B), strict=False):
        with torch.no_grad():
            for row, choice in zip(task.relaxation.alpha["cell"], wanted.cells["cell"], strict=True):
                row.zero_()
                row[ToySpace.operations.index(choice.operation)] = 1.0
        task.start_epoch(index, epoch)
        assert task.topology == task.genotype() == wanted
        built = {
            tuple(name.split(".")[3:5]) for name in task.eval_net.state_dict() if name.startswith("cells.0.edges.")
        }
        convolutions = [choice for choice in wanted.cells["cell"] if choice.operation == "nor_conv_3x3"]
        assert built == {(str(choice.edge), choice.operation) for choice in convolutions}


def test_random_topologies_differ_by_cycle_and_follow_the_seed(synthetic: ImageData) -> None:
    config = replace(OFFICIAL, **SMALL, random_topology=True)
    drawn = {seed: [build(config, synthetic, seed).propose(cycle) for cycle in range(4)] for seed in (0, 1)}
    assert len({genotype for genotypes in drawn.values() for genotype in genotypes}) == 8
    again = build(config, synthetic)
    with torch.no_grad():
        for alpha in again.relaxation.alpha.values():
            alpha.neg_()
    assert [again.propose(cycle) for cycle in range(4)] == drawn[0]
    assert again.genotype() not in drawn[0]


# -- behaviour ---------------------------------------------------------------------------------------------------------


def far_apart(count: int) -> ImageData:
    """Random left halves; the right half is the same (class 0) or the inverse (class 1).

    Pixels four columns apart decide, so that the stem's 3x3 windows, and whatever skips make of them, look alike in
    both classes.
    """
    draw = np.random.default_rng(0)
    left = draw.integers(0, 2, (count, 8, 4, 1))
    labels = np.arange(count, dtype=np.int64) % 2
    right = np.where(labels[:, None, None, None] == 0, left, 1 - left)
    images = Images((255 * np.concatenate([left, right], axis=2)).astype(np.uint8), labels)
    return ImageData("far apart", images, images, ("same", "inverse"), (0.5,), (0.5,), Augmentation())


PLANTED = replace(
    TOY, channels=8, cycles=5, l1_weight=0.0, alpha=Adam(lr=0.03), search_weights=Sgd(lr=0.1), eval_weights=Sgd(lr=0.1)
)


def test_planted_convolution_is_found() -> None:
    data = far_apart(512)
    task = build(PLANTED, data)
    walk(task)
    convolution, skip = (ToySpace.operations.index(name) for name in ("nor_conv_3x3", "skip_connect"))
    alpha = task.relaxation.alpha["cell"]
    assert (alpha[:, convolution] > alpha[:, skip]).all(), alpha
    assert set(task.genotype().operations()) == {"nor_conv_3x3"}


def test_only_a_convolution_can_see_what_is_planted() -> None:
    """The premise of the test above: on unseen images an E-Net of skips stays at chance, of convolutions not."""
    task = build(PLANTED, far_apart(512))
    accuracies = {}
    for name in ("skip_connect", "nor_conv_3x3"):
        task.transfer_topology(toy_genotype(name, name, name), cycle=0)
        for epoch in range(8):
            learn(task, epoch)
        with torch.no_grad():
            correct = [task.eval_net(images).logits.argmax(1) == labels for images, labels in task.train(0)]
        accuracies[name] = torch.cat(correct).double().mean().item()
    assert accuracies["skip_connect"] < 0.65
    assert accuracies["nor_conv_3x3"] > 0.95


def test_distillation_alone_moves_alpha_to_the_teacher() -> None:
    """No labels: S-Net holds E-Net's weights, and descends on the feedback by alpha alone until it proposes E-Net."""
    data = load("digits")
    config = replace(
        TOY,
        channels=8,
        shared_embeddings=True,
        train_embeddings=False,
        detach_teacher=True,
        alpha=Adam(lr=0.05),
    )
    task = build(config, data)
    planted = toy_genotype("skip_connect", "nor_conv_3x3", "skip_connect")
    assert task.genotype() != planted
    task.transfer_topology(planted, cycle=0)
    weights = task.search_net.state_dict()
    task.eval_net.load_state_dict({name: weights[name] for name in task.eval_net.state_dict()})
    teacher, student = copied(task.eval_net), copied(task.search_net)
    losses = []
    for epoch in range(4):
        for images, _ in task.val(epoch):
            loss, _ = task.feedback(task.search_net(images, task.relaxation()), task.eval_net(images))
            descend(loss, task.alpha_optimizer)
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    assert task.genotype() == planted
    assert moved(task.eval_net, teacher) == moved(task.search_net, student) == set()


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        replace(TOY, alpha=Adam(lr=1.0)),
        replace(
            TOY,
            alpha=Adam(lr=1.0),
            shared_stem=True,
            shared_embeddings=True,
            level_weights=True,
            fusion="batch",
            persistent_optimizers=False,
            inherit_batchnorm=False,
            joint_clip=True,
        ),
        replace(TOY, alpha=Adam(lr=1.0), feedback_weight=0.0),
        replace(TOY, alpha=Adam(lr=1.0), feedback_weight=0.0, feedback_levels=()),
    ],
    ids=["paper", "official", "no feedback", "no levels"],
)
def test_state_round_trip_is_exact_and_goes_on_alike(
    synthetic: ImageData, tmp_path: Path, config: CyclicConfig
) -> None:
    whole = build(config, synthetic)
    topologies = set()
    for cut in range(len(whole.plan())):
        walk(whole, cut, cut + 1)
        topologies.add(whole.topology)
        if cut not in (0, 2, 3):
            continue
        # after the pretraining, after a joint epoch, and within a cycle
        checkpoint.save(tmp_path / "state.safetensors", whole.state())
        resumed = build(config, synthetic, seed=0)
        resumed.load_state(checkpoint.load(tmp_path / "state.safetensors"))
        assert_same_state(whole, resumed)
        reference = build(config, synthetic)
        walk(reference)
        walk(resumed, cut + 1)
        assert_same_state(reference, resumed)
    assert len(topologies) > 1


def test_resumed_search_keeps_operations_that_are_out_of_use(synthetic: ImageData, tmp_path: Path) -> None:
    """Weights and momentum that only an earlier E-Net had are part of the state."""
    whole = build(TOY, synthetic)
    for cycle, genotype in enumerate((A, B)):
        whole.transfer_topology(genotype, cycle)
        learn(whole, cycle)
    checkpoint.save(tmp_path / "state.safetensors", whole.state())
    resumed = build(TOY, synthetic)
    resumed.load_state(checkpoint.load(tmp_path / "state.safetensors"))
    for task in (whole, resumed):
        task.transfer_topology(A, cycle=2)
        learn(task, 2)
    assert_same_state(whole, resumed)


def test_same_seed_same_search_another_seed_another(synthetic: ImageData) -> None:
    one, same, other = (build(TOY, synthetic, seed) for seed in (0, 0, 1))
    for task in (one, same, other):
        walk(task)
    assert_same_state(one, same)
    assert not torch.equal(one.relaxation.alpha["cell"], other.relaxation.alpha["cell"])


def test_search_leaves_the_global_generator_alone(synthetic: ImageData) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    walk(build(TOY, synthetic))
    assert torch.equal(torch.rand(3), expected)


def test_record_of_an_epoch(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    index = next(index for index, epoch in enumerate(task.plan()) if epoch.phase == "joint")
    record = task.end_epoch(index, {"search_loss": 1.5})
    assert record["metrics"] == {"phase": "joint", "cycle": 0, "search_loss": 1.5}
    architecture = record["genotypes"]
    assert architecture["text"] == task.genotype().text()
    # logits of a thousandth: next to nothing is decided
    assert architecture["entropy"] == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        task.relaxation.alpha["cell"].copy_(100 * torch.eye(3))
    decided = task.end_epoch(index, {})["genotypes"]
    assert decided["entropy"] == pytest.approx(0.0, abs=1e-9)
    assert (decided["skips"], decided["parameter_free"]) == (1, 2)


# -- the document ------------------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "algorithm.md"
NAMES = sorted(set(re.findall(r"`(cdarts(?:\.\w+)+)`", DOCUMENT.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", NAMES)
def test_names_in_the_document_resolve(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            # a field without default is an annotation only
            value = getattr(value, part) if hasattr(value, part) else value.__annotations__[part]
        return
    pytest.fail(f"{name}: no such module")


def test_document_names_every_step_of_the_algorithm() -> None:
    steps = ("search_weight_step", "evaluation_weight_step", "architecture_step", "feedback", "skip_penalty")
    transfer = ("genotype", "propose", "transfer_topology", "start_epoch", "plan", "step", "batches")
    for method in (*steps, *transfer):
        assert f"cdarts.algorithms.cyclic.CyclicSearch.{method}" in NAMES
    assert NasBench201Space.__name__ in DOCUMENT.read_text(encoding="utf-8")
