"""ENAS: what the controller says of its draws is true of them, and rewards move it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.enas import EnasConfig
from cdarts.algorithms.enas_controller import Controller, possible_columns
from cdarts.algorithms.enas_search import EnasSearch
from cdarts.data import Batch, ImageData, load
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.randomness import generator, seeded
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import Genotype

CONFIG = EnasConfig(
    space=ToySpace(),
    channels=4,
    cells=3,
    batch_size=32,
    epochs=2,
    candidates=5,
    controller_steps=3,
    samples=4,
)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: EnasConfig, data: ImageData) -> EnasSearch:
    return config.build(data, seed=0, device=torch.device("cpu"), execution="share")


def opinionated(space: Space) -> Controller:
    """A controller whose weights are large enough to make it prefer some operations, by what went before."""
    with seeded(0, "controller"):
        controller = Controller(space)
        for parameter in controller.parameters():
            torch.nn.init.uniform_(parameter, -2.0, 2.0)
    return controller


def test_log_probabilities_are_those_of_the_draws() -> None:
    """Over many draws each of the toy space's 27 genotypes comes as often as the controller says."""
    controller, draw = opinionated(ToySpace()), generator(0, "draws")
    said: dict[Genotype, float] = {}
    counts: Counter[Genotype] = Counter()
    with torch.no_grad():
        for _ in range(1500):
            made = controller.sample(draw)
            probability = made.log_probability.exp().item()
            assert said.setdefault(made.genotype, probability) == pytest.approx(probability)
            counts[made.genotype] += 1
    assert sum(said.values()) == pytest.approx(1.0, abs=0.03)
    assert max(said.values()) > 2 * min(said.values())
    for genotype, probability in said.items():
        deviation = (probability * (1 - probability) / 1500) ** 0.5
        assert abs(counts[genotype] / 1500 - probability) < 4.5 * deviation + 1e-3


def test_the_entropy_is_that_of_the_decisions() -> None:
    with seeded(0, "controller"):
        controller = Controller(NasBench201Space())
    with torch.no_grad():
        made = controller.sample(generator(0, "draws"))
    # a fresh controller knows nothing: nearly uniform, six decisions among five operations
    assert made.entropy.item() == pytest.approx(6 * torch.log(torch.tensor(5.0)).item(), abs=0.02)
    sharp = opinionated(NasBench201Space())
    with torch.no_grad():
        mean = torch.stack([sharp.sample(generator(seed, "draws")).entropy for seed in range(100)]).mean()
        surprise = -torch.stack([sharp.sample(generator(seed, "draws")).log_probability for seed in range(100)]).mean()
    assert mean.item() < 9.0
    assert surprise.item() == pytest.approx(mean.item(), abs=0.5), "the mean surprise is the entropy"


def test_the_likeliest_genotype_is_likely() -> None:
    controller, draw = opinionated(ToySpace()), generator(0, "draws")
    with torch.no_grad():
        draws = Counter(controller.sample(draw).genotype for _ in range(400))
    assert draws[controller.likeliest()] > 2 * 400 / 27
    assert controller.likeliest() == controller.likeliest()


@pytest.mark.parametrize(
    ("space", "columns"),
    [(ToySpace(), [0, 1, 2]), (NasBench201Space(), [0, 1, 2, 3, 4]), (DartsSpace(), [0, 1, 2, 3, 4, 5, 6])],
    ids=["toy", "nasbench201", "darts"],
)
def test_it_chooses_among_what_a_genotype_can_have(space: Space, columns: list[int]) -> None:
    assert possible_columns(space) == columns
    with seeded(0, "controller"):
        controller = Controller(space)
    seen: Counter[str] = Counter()
    edges: Counter[int] = Counter()
    with torch.no_grad():
        for seed in range(60):
            genotype = controller.sample(generator(seed, "draws")).genotype
            space.check(genotype)
            seen.update(genotype.operations())
            last = space.num_inputs + space.num_nodes - 1
            choices = genotype.cells[space.kinds[0]]
            edges.update(choice.edge.source for choice in choices if choice.edge.target == last)
        space.check(controller.likeliest())
    assert seen.keys() == {space.operations[column] for column in columns}
    assert edges.keys() == set(range(last)), "every edge has its chance"


def test_a_planted_reward_is_learned(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, samples=8, controller=Adam(lr=0.02, betas=(0.0, 0.999)), baseline_decay=0.9)
    task = build(config, synthetic)

    def reward(genotype: Genotype, batch: Batch) -> torch.Tensor:  # noqa: ARG001
        names = genotype.operations()
        return torch.tensor(names.count("skip_connect") / len(names), dtype=torch.float64)

    monkeypatch.setattr(task, "reward", reward)
    task.start_epoch(1, task.plan()[1])
    batches = next(task.batches(1))
    accuracies, entropies = [], []
    for position in range(80):
        losses = task.controller_step(position, *batches)
        accuracies.append(losses["val_accuracy"].item())
        entropies.append(losses["controller_entropy"].item())
    assert sum(accuracies[:5]) / 5 < 0.5
    assert sum(accuracies[-5:]) / 5 > 0.85
    assert entropies[-1] < 0.7 * entropies[0]
    assert task.controller.likeliest().operations() == ["skip_connect"] * 3
    assert task.guess() == task.controller.likeliest()


def test_the_step_is_reinforce(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """-mean((R - b) log pi), R with the entropy, b the moving average that has taken R in; no gradient of R."""
    config = replace(CONFIG, entropy_weight=0.01, baseline_decay=0.8)
    task, hand = build(config, synthetic), build(config, synthetic)
    rewards = iter([0.5, 0.25, 0.75, 0.5])
    monkeypatch.setattr(task, "reward", lambda *_: torch.tensor(next(rewards), dtype=torch.float64))
    for search in (task, hand):
        search.start_epoch(1, search.plan()[1])
    task.baseline = hand.baseline = 0.4
    task.controller_step(0, *next(task.batches(1)))

    draw = hand.draw("controller", 0)
    baseline, terms = 0.4, []
    for reward in (0.5, 0.25, 0.75, 0.5):
        made = hand.controller.sample(draw)
        total = reward + 0.01 * made.entropy.item()
        baseline = 0.8 * baseline + 0.2 * total
        terms.append(-(total - baseline) * made.log_probability)
    torch.stack(terms).mean().backward()
    torch.nn.utils.clip_grad_norm_(hand.controller.parameters(), 5.0)
    torch.optim.Adam(hand.controller.parameters(), lr=1e-3, betas=(0.0, 0.999), eps=1e-3).step()
    assert task.baseline == pytest.approx(baseline)
    for (name, one), other in zip(task.controller.named_parameters(), hand.controller.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7), name


def test_the_controllers_steps_leave_the_network_alone(synthetic: ImageData) -> None:
    task = build(CONFIG, synthetic)
    before = {name: value.clone() for name, value in task.search_net.state_dict().items()}
    task.start_epoch(1, task.plan()[1])
    for position, batch in enumerate(task.batches(1)):
        task.step(position, *batch)
    assert all(torch.equal(value, before[name]) for name, value in task.search_net.state_dict().items())
    assert task.baseline is not None


def test_the_plan_and_the_batches(synthetic: ImageData) -> None:
    task = build(CONFIG, synthetic)
    assert [(epoch.phase, epoch.steps) for epoch in task.plan()] == [
        ("train", 4),
        ("controller", 3),
        ("train", 4),
        ("controller", 3),
        ("select", 5),
    ]
    task.start_epoch(1, task.plan()[1])
    steps = list(task.batches(1))
    assert [len(batches) for batches in steps] == [4, 4, 4]
    # 12 batches are three passes over the val half's four, each in its own order
    firsts = [batch.images for batches in steps for batch in batches]
    assert all(not torch.equal(firsts[0], other) for other in firsts[1:])
    task.start_epoch(3, task.plan()[3])
    assert not torch.equal(next(task.batches(3))[0].images, firsts[0])


def test_paths_are_the_controllers(synthetic: ImageData) -> None:
    task = build(CONFIG, synthetic)
    task.start_epoch(0, task.plan()[0])
    with torch.no_grad():
        task.controller.predict.bias[2] = 1000.0
        task.controller.predict.weight.zero_()
    operations = Counter(name for position in range(50) for name in task.path(position).operations())
    # logits are at most 2.5: exp(2.5) against 1 and 1
    assert operations["nor_conv_3x3"] / 150 == pytest.approx(12.18 / 14.18, abs=0.1)


def test_under_a_protocol(synthetic: ImageData) -> None:
    protocol = Protocol(
        data="synthetic",
        image_size=None,
        space=ToySpace(),
        channels=4,
        cells=3,
        batch_size=32,
        epochs=31,
        still_epochs=2,
        weights=Sgd(lr=0.1),
        alpha_rate=10.0,
    )
    config = EnasConfig().under(protocol)
    config.check(synthetic)
    assert (config.epochs, config.controller_steps, config.candidates) == (31, 5, 100)
    assert config.controller.lr == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controller_steps": 0}, "--controller-steps 0: must be at least 1"),
        ({"samples": 0}, "--samples 0: must be at least 1"),
        ({"baseline_decay": 1.0}, "--baseline-decay 1.0: must be at least 0 and below 1"),
        ({"entropy_weight": -1.0}, "--entropy-weight -1.0: must be at least 0 and finite"),
        ({"controller": Adam(lr=-1.0)}, "--controller.lr -1.0: must be positive and finite"),
    ],
)
def test_impossible_settings_are_refused_in_the_users_words(
    changes: dict[str, object], message: str, synthetic: ImageData
) -> None:
    with pytest.raises(ConfigurationError) as error:
        replace(CONFIG, **changes).check(synthetic)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_small_search_runs(synthetic: ImageData) -> None:
    config = replace(
        CONFIG,
        channels=8,
        batch_size=16,
        epochs=8,
        candidates=8,
        weights=Sgd(lr=0.1, lr_end=0.0),
        controller=Adam(lr=0.01, betas=(0.0, 0.999)),
    )
    task = build(config, synthetic)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
        record = task.end_epoch(index, {})
    assert record["metrics"]["best_score"] > 0.7, "chance is 0.25"
    assert task.genotype() in task.scores
