"""The one descent against plain torch: backward, clip, step."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.engine.descent import Optimizer, descend, descend_along
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import NonFiniteError
from cdarts.randomness import generator, seeded

Build = Callable[[nn.Module, float | None], Optimizer]


def network(seed: int = 0) -> nn.Sequential:
    """A convolution in channels-last, a norm, a classifier; and a layer that no loss depends on."""
    with seeded(seed, "network"):
        layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5))
        layers.add_module("unused", nn.Linear(2, 2))
    return layers.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def loss_of(model: nn.Sequential, step: int) -> Tensor:
    images = torch.randn(8, 3, 8, 8, generator=generator(0, "images", step))
    labels = torch.randint(0, 5, (8,), generator=generator(0, "labels", step))
    return F.cross_entropy(model[:5](images), labels)


def sgd(model: nn.Module, clip_norm: float | None) -> Optimizer:
    return Sgd(lr=0.1, momentum=0.9, weight_decay=1e-2, clip_norm=clip_norm).build(model.named_parameters())


def adam(model: nn.Module, clip_norm: float | None) -> Optimizer:
    return Adam(lr=0.01, betas=(0.5, 0.999), weight_decay=1e-2, clip_norm=clip_norm).build(model.named_parameters())


def torch_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-2)


def torch_adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 0.01, (0.5, 0.999), weight_decay=1e-2)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.mark.parametrize(
    "clip_norm", [None, 100.0, 0.05], ids=["no clip", "clip that does not bind", "clip that binds"]
)
@pytest.mark.parametrize(("build", "reference"), [(sgd, torch_sgd), (adam, torch_adam)], ids=["sgd", "adam"])
def test_equals_backward_clip_step(
    build: Build, reference: Callable[[nn.Module], torch.optim.Optimizer], clip_norm: float | None
) -> None:
    ours, theirs = network(), network()
    optimizer, their_optimizer = build(ours, clip_norm), reference(theirs)
    for step in range(5):
        descend(loss_of(ours, step), optimizer)
        their_optimizer.zero_grad()
        loss_of(theirs, step).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
        their_optimizer.step()
    assert_equal(state_of(ours), state_of(theirs))


def test_two_optimizers_each_with_a_clip_of_its_own() -> None:
    ours, theirs = network(), network()
    parts = [Sgd(lr=0.1, clip_norm=0.1).build(ours[0].named_parameters()), adam(ours[4], 0.01)]
    their_parts = [torch.optim.SGD(theirs[0].parameters(), 0.1, 0.9, weight_decay=3e-4), torch_adam(theirs[4])]
    for step in range(3):
        descend(loss_of(ours, step), *parts)
        theirs.zero_grad()
        loss_of(theirs, step).backward()
        for module, clip_norm, optimizer in zip((theirs[0], theirs[4]), (0.1, 0.01), their_parts, strict=True):
            nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
            optimizer.step()
    for index in (0, 4):
        assert_equal(state_of(ours[index]), state_of(theirs[index]))
    assert torch.equal(ours[1].weight, network()[1].weight), "the norm was in neither optimizer"


def test_joint_clip_counts_parameters_that_are_not_stepped() -> None:
    ours, theirs = network(), network()
    stepped, further = ours[4], [*ours[0].parameters(), *ours[1].parameters()]
    optimizer = Sgd(lr=0.1, momentum=0.0, weight_decay=0.0, clip_norm=1e9).build(stepped.named_parameters())
    descend(loss_of(ours, 0), optimizer, joint_clip=(0.05, further))
    loss_of(theirs, 0).backward()
    nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
    torch.optim.SGD(theirs[4].parameters(), 0.1).step()
    torch.testing.assert_close(ours[4].weight, theirs[4].weight, rtol=1e-6, atol=1e-8)
    assert torch.equal(ours[0].weight, network()[0].weight)
    alone = network()
    descend(
        loss_of(alone, 0),
        Sgd(lr=0.1, momentum=0.0, weight_decay=0.0, clip_norm=0.05).build(alone[4].named_parameters()),
    )
    assert not torch.allclose(alone[4].weight, ours[4].weight, rtol=1e-4), "the further gradients made no difference"


def test_joint_clip_passes_over_frozen_parameters() -> None:
    model = network()
    model[0].requires_grad_(False)
    descend(loss_of(model, 0), sgd(model[4], 1.0), joint_clip=(0.05, list(model[0].parameters())))
    assert not torch.equal(model[4].weight, network()[4].weight)


def test_no_gradient_stays_behind() -> None:
    model = network()
    descend(loss_of(model, 0), sgd(model[4], 1.0), joint_clip=(1.0, list(model[0].parameters())))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unused_parameters_are_skipped() -> None:
    model = network()
    optimizer = sgd(model, 1.0)
    descend(loss_of(model, 0), optimizer)
    # not even weight decay touches them, and they have no momentum
    assert torch.equal(model.unused.weight, network().unused.weight)
    assert set(optimizer.state()) == {name for name, _ in model.named_parameters() if not name.startswith("unused")}


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_is_stepped_on_a_gradient_that_is_not_finite(value: float, joint: bool) -> None:
    model = network()
    first, second = sgd(model[0], None), adam(model[4], None)
    before = state_of(model)
    loss = loss_of(model, 0)
    before |= {name: tensor.clone() for name, tensor in model[1].state_dict(prefix="1.").items()}
    with pytest.raises(NonFiniteError, match="nothing was stepped") as raised:
        descend(loss * value, first, second, joint_clip=(1.0, []) if joint else None)
    assert raised.value.exit_code == 5
    assert_equal(state_of(model), before)
    assert first.state() == {} and second.state() == {}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_is_stepped_if_only_a_further_gradient_is_not_finite() -> None:
    stepped, further = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))
    optimizer = Sgd(lr=0.1).build([("stepped", stepped)])
    with pytest.raises(NonFiniteError):
        descend(stepped.sum() + further.sqrt().sum(), optimizer, joint_clip=(5.0, [further]))
    assert stepped.tolist() == [1, 1]


@pytest.mark.parametrize("build", [sgd, adam])
def test_state_by_name_goes_on_to_the_bit(build: Build) -> None:
    straight, cut = network(), network()
    optimizer, before = build(straight, 1.0), build(cut, 1.0)
    for step in range(3):
        descend(loss_of(straight, step), optimizer)
        descend(loss_of(cut, step), before)
    resumed = network(seed=1)
    resumed.load_state_dict(cut.state_dict())
    after = build(resumed, 1.0)
    after.load_state({name: dict(entries) for name, entries in before.state().items()})
    for step in range(3, 6):
        descend(loss_of(straight, step), optimizer)
        descend(loss_of(resumed, step), after)
    assert_equal(state_of(straight), state_of(resumed))


def test_state_follows_the_names_into_another_network() -> None:
    model = network()
    optimizer = sgd(model, None)
    descend(loss_of(model, 0), optimizer)
    moments = optimizer.state()
    other = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
    known = {"0.weight": moments["0.weight"], "no such parameter": moments["0.bias"]}
    inherited = sgd(other, None)
    inherited.load_state(known)
    assert set(inherited.state()) == {"0.weight"}
    copy = inherited.state()["0.weight"]["momentum_buffer"]
    assert torch.equal(copy, moments["0.weight"]["momentum_buffer"])
    assert copy.data_ptr() != moments["0.weight"]["momentum_buffer"].data_ptr()
    assert copy.stride() == other[0].weight.stride(), "a moment lies in memory as its parameter does"


def test_the_learning_rate_can_be_set() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = Sgd(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=None).build([("weight", weight)])
    optimizer.set_lr(0.25)
    descend(weight.sum(), optimizer)
    assert weight.item() == -0.25


def test_descend_along_takes_the_gradients_given_and_clips_them() -> None:
    weight, other = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([5.0]))
    optimizer = Sgd(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0).build([("weight", weight), ("other", other)])
    descend_along([torch.tensor([3.0, 4.0]), None], optimizer)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.4, 1.2]))
    assert other.item() == 5.0 and weight.grad is None
    with pytest.raises(NonFiniteError):
        descend_along([torch.tensor([math.nan, 0.0]), None], optimizer)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.4, 1.2]))


def test_an_error_names_every_term_of_the_loss() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = Sgd(lr=1.0).build([("weight", weight)])
    terms = {"val_loss": weight.sum(), "penalty": weight.sum() * math.nan}
    with pytest.raises(NonFiniteError, match=r"\(val_loss 1, penalty nan\); nothing was stepped"):
        descend(torch.stack(list(terms.values())).sum(), optimizer, terms=terms)
    assert weight.item() == 1.0


def test_a_state_replaces_the_one_before() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = Sgd(lr=1.0, momentum=0.9).build([("weight", weight)])
    before = optimizer.state()
    descend(weight.sum(), optimizer)
    assert optimizer.state() != {}
    optimizer.load_state(before)
    assert optimizer.state() == {}
