"""DARTS's second-order step, against the exact gradient by differentiating twice."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from cdarts.algorithms import second_order
from cdarts.algorithms.darts import DartsConfig
from cdarts.algorithms.second_order import SecondOrderSearch
from cdarts.data import Batch, ImageData, load
from cdarts.engine.descent import Optimizer, descend_along
from cdarts.engine.optimizers import Sgd
from cdarts.spaces import NasBench201Space, ToySpace

CPU = torch.device("cpu")
TOY = DartsConfig(
    space=ToySpace(),
    channels=4,
    cells=3,
    batch_size=32,
    epochs=4,
    weights=Sgd(lr=0.05, lr_end=0.1, momentum=0.9, weight_decay=0.01),
    second_order=True,
)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: DartsConfig, data: ImageData) -> SecondOrderSearch:
    search = config.build(data, seed=0, device=CPU, execution="share")
    assert isinstance(search, SecondOrderSearch)
    return search


def under_way(data: ImageData) -> tuple[SecondOrderSearch, Batch, Batch]:
    """A search in float64 in its second epoch, after steps that left momentum behind; the next batches."""
    task = build(TOY, data)
    task.relaxation.double()
    task.search_net.double()
    task.search_net.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(), *arguments[1:]))
    with torch.no_grad():
        alpha = task.relaxation.alpha["cell"]
        alpha.copy_(torch.linspace(-1, 1, alpha.numel()).sin().reshape(alpha.shape))
    task.start_epoch(1, task.plan()[1])
    batches = task.batches(1)
    for position in range(2):
        task.weight_step(position, next(batches)[0])
    train, val = next(batches)
    return task, train, val


def terms(task: SecondOrderSearch, train: Batch, val: Batch) -> tuple[Tensor, Tensor]:
    """Alpha's gradient with the weights held at where the step ahead leads, and the exact gradient through that step.

    The step ahead is written out: w' = w - lr * (gradient + weight decay * w + momentum * buffer).
    """
    config, alpha = task.config.weights, task.relaxation.alpha["cell"]
    buffers = task.weight_optimizer.optimizer.state
    names = list(task.weight_optimizer.named)
    weights = {name: p.detach().requires_grad_() for name, p in task.weight_optimizer.named.items()}

    def loss(parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        output = functional_call(task.search_net, parameters, (batch.images, task.relaxation()))
        return F.cross_entropy(output.logits, batch.labels)

    lr = config.lr_at(task.progress)
    assert lr < config.lr
    gradients = torch.autograd.grad(loss(weights, train), list(weights.values()), create_graph=True)
    ahead = {
        name: weights[name]
        - lr
        * (
            gradient
            + config.weight_decay * weights[name]
            + config.momentum * buffers[task.weight_optimizer.named[name]]["momentum_buffer"]
        )
        for name, gradient in zip(names, gradients, strict=True)
    }
    (exact,) = torch.autograd.grad(loss(ahead, val), [alpha])
    (direct,) = torch.autograd.grad(loss({name: w.detach() for name, w in ahead.items()}, val), [alpha])
    return direct, exact


def gradient_taken(task: SecondOrderSearch, train: Batch, val: Batch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the architecture step hands to alpha's optimizer."""
    taken: list[Tensor] = []

    def record(gradients: Sequence[Tensor | None], optimizer: Optimizer) -> None:
        taken.extend(gradient for gradient in gradients if gradient is not None)
        descend_along(gradients, optimizer)

    monkeypatch.setattr(second_order, "descend_along", record)
    task.architecture_step(2, train, val)
    (gradient,) = taken
    return gradient


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_the_gradient_is_the_exact_one(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the published length of the finite difference, on a network without kinks.

    On one of ReLUs it is another quantity: some cross their kink between the difference's two points, and what they add
    does not vanish with its length until none does.
    """
    monkeypatch.setattr(F, "relu", F.softplus)
    task, train, val = under_way(synthetic)
    direct, exact = terms(task, train, val)
    found = gradient_taken(task, train, val, monkeypatch)
    # what second order adds is large enough to be seen
    assert error(direct, exact) > 0.02
    assert error(found - direct, exact - direct) < 1e-3
    assert error(found, exact) < 1e-4


def test_its_error_falls_with_the_square_of_the_finite_differences_length(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "relu", F.softplus)
    errors = []
    for width in (0.03, 0.003):
        monkeypatch.setattr(second_order, "WIDTH", width)
        task, train, val = under_way(synthetic)
        _, exact = terms(task, train, val)
        errors.append(error(gradient_taken(task, train, val, monkeypatch), exact))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_with_relus_it_is_exact_if_the_finite_difference_is_short(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_order, "WIDTH", 1e-6)
    task, train, val = under_way(synthetic)
    direct, exact = terms(task, train, val)
    found = gradient_taken(task, train, val, monkeypatch)
    assert error(found - direct, exact - direct) < 1e-6


def test_the_weights_and_their_momentum_are_as_before_to_the_bit(synthetic: ImageData) -> None:
    task, train, val = under_way(synthetic)
    weights = [p.detach().clone() for p in task.weight_optimizer.parameters]
    momentum = {name: state["momentum_buffer"].clone() for name, state in task.weight_optimizer.state().items()}
    alpha = task.relaxation.alpha["cell"].detach().clone()
    losses = task.architecture_step(2, train, val)
    assert set(losses) == {"val_loss", "val_accuracy"}
    assert not torch.equal(task.relaxation.alpha["cell"], alpha)
    for before, after in zip(weights, task.weight_optimizer.parameters, strict=True):
        assert torch.equal(before, after)
        assert after.grad is None
    assert momentum
    for name, state in task.weight_optimizer.state().items():
        assert torch.equal(momentum[name], state["momentum_buffer"])


def test_it_is_the_first_order_gradient_where_the_step_ahead_has_no_length(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, train, val = under_way(synthetic)
    monkeypatch.setattr(Sgd, "lr_at", lambda *_: 0.0)
    alpha = task.relaxation.alpha["cell"]
    logits = task.search_net(val.images, task.relaxation()).logits
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, val.labels), [alpha])
    found = gradient_taken(task, train, val, monkeypatch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_small_search(synthetic: ImageData) -> None:
    task = build(replace(TOY, space=NasBench201Space(), batch_size=64, epochs=2), synthetic)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())
    task.config.space.check(task.genotype())
