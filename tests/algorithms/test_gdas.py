"""GDAS: one drawn operation an edge is computed, and all logits of the edge learn from it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cdarts.algorithms.gdas import GdasConfig
from cdarts.algorithms.gdas_search import GdasSearch
from cdarts.algorithms.gumbel import OneHot, gumbel
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.networks import Cell
from cdarts.operations import Operation
from cdarts.randomness import generator
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import CellTopology, Edge

SPACES = [pytest.param(space, id=space.name) for space in (ToySpace(), NasBench201Space(), DartsSpace())]


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def search(data: ImageData, space: Space, execution: str = "plain") -> GdasSearch:
    config = GdasConfig(space=space, channels=4, cells=3, batch_size=16, epochs=3)  # type: ignore[arg-type]
    task = config.build(data, seed=0, device=torch.device("cpu"), execution=execution)
    task.start_epoch(0, task.plan()[0])
    return task


@contextmanager
def executed(task: GdasSearch) -> Iterator[list[tuple[str, str, str]]]:
    """(cell, edge, operation) of every operation that runs within the block; `plain` calls them one by one."""
    calls: list[tuple[str, str, str]] = []
    handles = [
        operation.register_forward_hook(
            lambda *_, place=(place, edge, name): calls.append(place)  # type: ignore[misc]
        )
        for place, cell in task.search_net.named_modules()
        if isinstance(cell, Cell)
        for edge, bundle in cell.edges.items()
        for name, operation in bundle.items()
        if isinstance(operation, Operation)
    ]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("space", SPACES)
def test_one_operation_an_edge_is_executed_and_it_is_the_drawn_one(space: Space, synthetic: ImageData) -> None:
    task = search(synthetic, space)
    train, val = next(task.batches(0))
    kinds = {slot.name: slot.kind for slot in task.search_net.layout if slot.kind}
    for step in (
        lambda: task.architecture_step(0, train, val),
        lambda: task.weight_step(0, train),
        lambda: task.weight_step(1, train),
    ):
        with executed(task) as calls:
            step()
        per_edge = Counter((cell, edge) for cell, edge, _ in calls)
        assert len(per_edge) == len(kinds) * len(space.all_edges())
        assert set(per_edge.values()) == {1}
        # one draw for all cells of a kind
        assert len({(kinds[cell], edge, operation) for cell, edge, operation in calls}) == len(
            {(kinds[cell], edge) for cell, edge, _ in calls}
        )
    drawn = {kind: row.argmax(dim=1) for kind, row in task.relaxation(task.draw("weights", 1)).items()}
    for cell, edge, operation in calls:
        position = [str(edge) for edge in space.all_edges()].index(edge)
        assert space.operations[drawn[kinds[cell]][position]] == operation  # type: ignore[index]


@pytest.mark.parametrize("execution", ["plain", "share"])
def test_the_output_is_that_of_the_drawn_discrete_network(execution: str, synthetic: ImageData) -> None:
    task = search(synthetic, NasBench201Space(), execution)
    images = next(task.batches(0))[0].images
    for position in range(5):
        drawn = task.relaxation(task.draw("weights", position))["cell"].argmax(dim=1).tolist()
        edges = [
            (edge, (names[column],))
            for (edge, names), column in zip(task.config.space.supernet()["cell"].edges, drawn, strict=True)
        ]
        with torch.no_grad():
            logits = task.logits(images, task.draw("weights", position), learns_alpha=False)
            discrete = task.search_net(images, paths={"cell": CellTopology(1, 3, tuple(edges))}).logits
        assert torch.equal(logits, discrete)


def test_the_gradient_reaches_all_logits_of_an_edge_through_the_softmax(synthetic: ImageData) -> None:
    """dL/d alpha_k = dL/d factor * p_o * (1[k = o] - p_k) / temperature, o the drawn operation."""
    task = search(synthetic, NasBench201Space())
    task.relaxation.temperature = 0.7
    alpha = task.relaxation.alpha["cell"]
    none = NasBench201Space.operations.index("none")
    # a draw with two edges of none
    for position in range(100):
        p = torch.softmax((alpha.detach() + gumbel(alpha.shape, task.draw("alpha", position))) / 0.7, dim=1)
        drawn = p.argmax(dim=1)
        if (drawn == none).sum() == 2:
            break
    some_not_none = drawn != none
    batch = next(task.batches(0))[1]
    loss = F.cross_entropy(task.logits(batch.images, task.draw("alpha", position), learns_alpha=True), batch.labels)
    (gradient,) = torch.autograd.grad(loss, alpha)
    p_drawn = p.gather(1, drawn[:, None])
    through_softmax = p_drawn * (F.one_hot(drawn, 5) - p) / 0.7
    for edge in range(6):
        if not some_not_none[edge]:
            assert torch.equal(gradient[edge], torch.zeros(5)), "zeros times the factor: no gradient"
            continue
        ratio = gradient[edge] / through_softmax[edge]
        assert torch.allclose(ratio, ratio[0].expand(5), rtol=1e-3), "one number for the edge: dL / d factor"
    reached = gradient[some_not_none].abs() > 0
    # an edge all of whose paths to the output carry none has none
    assert reached.all(dim=1).any() and (reached.all(dim=1) | ~reached.any(dim=1)).all()


def test_none_is_not_computed_and_its_edge_gets_no_gradient(synthetic: ImageData) -> None:
    task = search(synthetic, NasBench201Space(), "share")
    with torch.no_grad():
        task.relaxation.alpha["cell"][:, 0] = 100.0
    before = task.relaxation.alpha["cell"].detach().clone()
    train, val = next(task.batches(0))
    losses = {**task.architecture_step(0, train, val), **task.weight_step(0, train)}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert torch.equal(task.relaxation.alpha["cell"], before)


def test_weight_steps_leave_alpha_and_alpha_steps_leave_weights(synthetic: ImageData) -> None:
    task = search(synthetic, ToySpace())
    train, val = next(task.batches(0))
    alpha = task.relaxation.alpha["cell"].detach().clone()
    weights = {name: weight.detach().clone() for name, weight in task.search_net.named_parameters()}
    for position in range(4):
        task.weight_step(position, train)
    assert torch.equal(task.relaxation.alpha["cell"], alpha)
    assert any(not torch.equal(weight, weights[name]) for name, weight in task.search_net.named_parameters())
    weights = {name: weight.detach().clone() for name, weight in task.search_net.named_parameters()}
    for position in range(4):
        task.architecture_step(position, train, val)
    assert not torch.equal(task.relaxation.alpha["cell"], alpha)
    assert all(torch.equal(weight, weights[name]) for name, weight in task.search_net.named_parameters())


def test_draws_are_distributed_as_softmax_of_alpha() -> None:
    topology = {"cell": CellTopology(1, 1, ((Edge(1, 0), ("a", "b", "c", "d")),))}
    relaxation = OneHot(topology, generator(0, "alpha"))
    relaxation.temperature = 3.0
    with torch.no_grad():
        relaxation.alpha["cell"].copy_(torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log())
    draw = generator(0, "draws")
    draws = torch.stack([relaxation(draw)["cell"].detach()[0] for _ in range(4000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(draws.sum(dim=1), torch.ones(4000))
    # three standard errors of the largest share are 0.024
    assert torch.allclose(draws.mean(dim=0), torch.tensor([0.5, 0.1, 0.3, 0.1]), atol=0.024)


def test_gumbel_noise_is_finite_with_the_gumbel_mean_and_variance() -> None:
    noise = gumbel(torch.Size([200_000]), generator(0, "noise"))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.012)
    assert noise.var().item() == pytest.approx(1.6449, abs=0.05)


def test_the_temperature_goes_from_ten_to_a_tenth(synthetic: ImageData) -> None:
    config = GdasConfig(space=ToySpace(), channels=4, cells=3, batch_size=16, epochs=11)
    task = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    temperatures = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        temperatures.append(task.relaxation.temperature)
    assert temperatures == pytest.approx([10.0 - 0.99 * index for index in range(11)])
    assert replace(config, epochs=1).temperature_at(0) == 10.0


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf")])
@pytest.mark.parametrize("field", ["temperature", "temperature_end"])
def test_impossible_temperatures_are_refused_in_the_users_words(field: str, value: float, synthetic: ImageData) -> None:
    config = replace(GdasConfig(batch_size=16), **{field: value})
    with pytest.raises(ConfigurationError, match=f"^--{field.replace('_', '-')} {value}: must be positive and finite$"):
        config.check(synthetic)


def test_a_small_search_learns_the_images(synthetic: ImageData) -> None:
    config = GdasConfig(
        space=ToySpace(),
        channels=8,
        cells=3,
        batch_size=32,
        epochs=10,
        weights=Sgd(lr=0.1, lr_end=0.0),
        alpha=Adam(lr=0.05),
    )
    task = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        accuracies = [
            task.step(position, *batch)["train_accuracy"] for position, batch in enumerate(task.batches(index))
        ]
    assert torch.stack(accuracies).mean() > 0.7, "chance is 0.25"
    config.space.check(task.genotype())
