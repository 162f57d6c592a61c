"""Options of retraining: each does what its source says, and leaves everything as it was while it is off."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts import zoo
from cdarts.data import ImageData, evaluation_batches, load
from cdarts.errors import ConfigurationError
from cdarts.networks import Network
from cdarts.retraining import Retraining
from cdarts.retraining.averaging import WeightAverage
from cdarts.retraining.mixing import Targets, cutmix, mixup
from cdarts.retraining.task import RetrainTask, evaluate

CPU = torch.device("cpu")
SMALL = Retraining(cells=3, channels=4, epochs=4, batch_size=64, cutout=2, drop_path=0.3)
EVERYTHING = replace(
    SMALL,
    colour_jitter=(0.4, 0.4, 0.4, 0.2),
    rand_augment=(1, 5),
    mixup=0.4,
    cutmix=1.0,
    ema_decay=0.9,
    precision="bfloat16",
    accumulation=3,
    test_flip=True,
)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(data: ImageData, training: Retraining = SMALL, seed: int = 0, execution: str = "share") -> RetrainTask:
    return training.build(zoo.load("darts-v2"), data, seed=seed, device=CPU, execution=execution)


def train(task: RetrainTask, epochs: range) -> list[dict[str, Any]]:
    """As the loop does; returns the metrics of each epoch."""
    lines = []
    for index in epochs:
        task.start_epoch(index, task.plan()[index])
        losses: dict[str, list[float]] = {}
        for position, batch in enumerate(task.batches(index)):
            for name, loss in task.step(position, *batch).items():
                losses.setdefault(name, []).append(loss.item())
        lines.append(
            dict(task.end_epoch(index, {name: float(np.mean(values)) for name, values in losses.items()})["metrics"])
        )
    return lines


def weights(task: RetrainTask) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in task._modules().items()
        for key, tensor in module.state_dict().items()
    }


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 3])
def test_with_every_option_a_state_goes_on_to_the_bit(synthetic: ImageData, cut: int) -> None:
    straight, before, after = build(synthetic, EVERYTHING), build(synthetic, EVERYTHING), build(synthetic, EVERYTHING)
    lines = train(straight, range(4))
    train(before, range(cut))
    after.load_state(copy.deepcopy(before.state()))
    assert train(after, range(cut, 4)) == lines[cut:]
    ours, theirs = weights(after), weights(straight)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert after.flip_accuracy == straight.flip_accuracy is not None


def test_a_step_depends_on_its_place_alone(synthetic: ImageData) -> None:
    """Whatever was computed before it, here or anywhere else in the process."""
    first, second = build(synthetic, EVERYTHING), build(synthetic, EVERYTHING)
    torch.rand(7), np.random.default_rng(0).random(3)
    for task in (first, second):
        task.start_epoch(2, task.plan()[2])
    batches = list(first.batches(2))
    second.network.load_state_dict(first.network.state_dict())
    assert torch.equal(first.step(1, *batches[1])["loss"], second.step(1, *list(second.batches(2))[1])["loss"])


def test_a_checkpoint_of_an_earlier_version_fits(synthetic: ImageData) -> None:
    task = build(synthetic)
    state = {name: value for name, value in task.state().items() if name != "flip_accuracy"}
    build(synthetic).load_state(state)


# -- mixing ------------------------------------------------------------------------------------------------------------


def test_each_batch_is_mixed_one_way_or_the_other(synthetic: ImageData) -> None:
    task = build(synthetic, replace(SMALL, mixup=0.4, cutmix=1.0))
    (batch,) = next(task.batches(0))
    ways = []
    for epoch in range(40):
        task.start_epoch(min(epoch, 3), task.plan()[0])
        task.epoch = epoch
        images, targets = task._mixed(*batch, 5)
        again, _ = task._mixed(*batch, 5)
        assert torch.equal(images, again)
        assert targets.partners is not None
        # pixels of CutMix are those of some image of the batch
        ways.append("cutmix" if bool(torch.isin(images, batch.images).all()) else "mixup")
    assert 8 < ways.count("mixup") < 32
    assert task._mixed(*batch, 6)[1].share != task._mixed(*batch, 7)[1].share


@pytest.mark.parametrize(("field", "way"), [("mixup", mixup), ("cutmix", cutmix)])
def test_one_way_alone(synthetic: ImageData, field: str, way: Any) -> None:
    from cdarts.randomness import key

    task = build(synthetic, replace(SMALL, **{field: 0.7}))
    task.start_epoch(1, task.plan()[1])
    (batch,) = next(task.batches(1))
    draw = np.random.Generator(np.random.PCG64(key(0, "mixing", 1, 3)))
    draw.integers(1)
    expected, targets = way(*batch, 0.7, draw)
    images, found = task._mixed(*batch, 3)
    assert torch.equal(images, expected)
    assert found.share == targets.share and torch.equal(found.partners, targets.partners)  # type: ignore[arg-type]


def test_without_mixing_a_batch_is_as_it_was(synthetic: ImageData) -> None:
    task = build(synthetic)
    task.start_epoch(0, task.plan()[0])
    (batch,) = next(task.batches(0))
    images, targets = task._mixed(*batch, 0)
    assert images is batch.images and targets == Targets(batch.labels)


def test_a_mixed_step_is_the_gradient_of_the_shared_loss(synthetic: ImageData) -> None:
    training = replace(
        SMALL, mixup=0.4, drop_path=0.0, momentum=0.0, weight_decay=0.0, clip_norm=None, auxiliary_weight=0.0
    )
    ours, theirs = build(synthetic, training), build(synthetic, training)
    for task in (ours, theirs):
        task.start_epoch(0, task.plan()[0])
    batch = next(ours.batches(0))
    loss = ours.step(0, *batch)["loss"]
    images, targets = theirs._mixed(*batch[0], 0)
    assert targets.partners is not None
    soft = targets.share * F.one_hot(targets.labels, 4) + (1 - targets.share) * F.one_hot(targets.partners, 4)
    expected = F.cross_entropy(theirs.network(images).logits, soft.float())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in theirs.network.named_parameters():
        if parameter.grad is not None:
            stepped = parameter.detach() - 0.025 * parameter.grad
            found = ours.network.get_parameter(name).detach()
            torch.testing.assert_close(found, stepped, msg=name, rtol=1e-4, atol=1e-6)


# -- averaged weights --------------------------------------------------------------------------------------------------


def test_the_average_is_the_closed_form(synthetic: ImageData) -> None:
    """sum_t (1 - d_t) prod_{s > t} d_s value_t, and what is left of the beginning."""
    network = build(synthetic).network.double()
    average = WeightAverage(network, 0.8)
    values, decays = [network.classifier.bias.detach().clone()], []
    for step in range(6):
        with torch.no_grad():
            network.classifier.bias += step + 1.0
        average.follow(network, step)
        values.append(network.classifier.bias.detach().clone())
        decays.append(min(0.8, (1 + step) / (10 + step)))
        assert average.decay_at(step) == decays[-1]
    expected = values[0] * math.prod(decays)
    for step, value in enumerate(values[1:]):
        expected = expected + (1 - decays[step]) * math.prod(decays[step + 1 :]) * value
    torch.testing.assert_close(average.network.classifier.bias.detach(), expected)


def test_the_decay_reaches_its_full_value() -> None:
    average = WeightAverage.__new__(WeightAverage)
    average.decay = 0.999
    assert [average.decay_at(step) for step in (0, 90, 8_981, 100_000)] == pytest.approx(
        [0.1, 0.91, 8982 / 8991, 0.999]
    )


def test_the_average_follows_statistics_and_counters_and_is_tested(synthetic: ImageData) -> None:
    task = build(synthetic, replace(SMALL, ema_decay=0.9, epochs=1))
    reference = copy.deepcopy(task.network)
    decayed = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    task.start_epoch(0, task.plan()[0])
    for position, batch in enumerate(task.batches(0)):
        task.step(position, *batch)
        decay = min(0.9, (1 + position) / (10 + position))
        for name, tensor in task.network.state_dict().items():
            decayed[name] = decay * decayed[name] + (1 - decay) * tensor if tensor.is_floating_point() else tensor
    assert task.model is not task.network
    for name, tensor in task.model.state_dict().items():
        torch.testing.assert_close(tensor, decayed[name], msg=name, rtol=1e-5, atol=1e-6)
        assert task.network.state_dict()[name].dtype == tensor.dtype
    assert not any(parameter.requires_grad for parameter in task.model.parameters())
    line = task.end_epoch(0, {})["metrics"]
    plain = evaluate(task.model, evaluation_batches(synthetic.test, synthetic, 64, CPU))
    assert line["test_loss"] == pytest.approx(plain.loss, rel=1e-6)
    raw = evaluate(task.network, evaluation_batches(synthetic.test, synthetic, 64, CPU))
    assert line["test_loss"] != pytest.approx(raw.loss, rel=1e-6)


def test_averaging_leaves_training_as_it_is(synthetic: ImageData) -> None:
    plain, averaged = build(synthetic), build(synthetic, replace(SMALL, ema_decay=0.99))
    assert plain.model is plain.network and plain.average is None
    for task in (plain, averaged):
        train(task, range(2))
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, averaged.network.state_dict()[name]), name


# -- precision ---------------------------------------------------------------------------------------------------------


def kinds_seen(task: RetrainTask) -> set[torch.dtype]:
    """What convolutions compute in."""
    seen: set[torch.dtype] = set()
    for module in task.network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    task.start_epoch(1, task.plan()[1])
    task.step(0, *next(task.batches(1)))
    return seen


def test_bfloat16_computes_in_it_and_keeps_the_rest_in_float32(synthetic: ImageData) -> None:
    task = build(synthetic, replace(SMALL, precision="bfloat16"))
    assert kinds_seen(task) == {torch.bfloat16}
    assert kinds_seen(build(synthetic)) == {torch.float32}
    tensors = [*weights(task).values(), *(state["momentum_buffer"] for state in task.optimizer.state().values())]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}
    losses = task.step(1, *list(task.batches(1))[1])
    assert losses["loss"].dtype == losses["auxiliary_loss"].dtype == torch.float32
    seen: set[torch.dtype] = set()
    task.network.classifier.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    task.test()
    assert seen == {torch.float32}, "tests are exact"


def test_bfloat16_loss_is_near_that_of_float32(synthetic: ImageData) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        task = build(synthetic, replace(SMALL, precision=precision, drop_path=0.0))  # type: ignore[arg-type]
        task.start_epoch(0, task.plan()[0])
        losses.append(task.step(0, *next(task.batches(0)))["loss"].item())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_network_learns_in_bfloat16(synthetic: ImageData) -> None:
    training = replace(SMALL, precision="bfloat16", epochs=12, lr=0.1, batch_size=32, drop_path=0.0, cutout=0)
    lines = train(build(synthetic, training), range(12))
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]


@pytest.mark.parametrize("execution", ["fused", "recompute"])
def test_kernels_in_float32_refuse_bfloat16(synthetic: ImageData, execution: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--precision bfloat16: the kernels of --execution {execution}"):
        build(synthetic, replace(SMALL, precision="bfloat16"), execution=execution)


# -- accumulation ------------------------------------------------------------------------------------------------------


def still(task: RetrainTask) -> None:
    """BatchNorm by running statistics, so that a batch's parts do not differ from the whole."""
    for module in task.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("parts", [2, 3, 32])
def test_accumulated_gradients_are_those_of_the_whole_batch(synthetic: ImageData, parts: int) -> None:
    # mixed batches, with smoothing: shares and partners have to be split alike
    training = replace(SMALL, auxiliary_weight=0.0, drop_path=0.0, mixup=0.4, label_smoothing=0.1, clip_norm=0.5)
    whole, split = build(synthetic, training), build(synthetic, replace(training, accumulation=parts))
    for task in (whole, split):
        still(task)
        task.start_epoch(1, task.plan()[1])
    for position, batch in zip(range(3), whole.batches(1), strict=False):
        ours, theirs = split.step(position, *batch), whole.step(position, *batch)
        assert ours.keys() == theirs.keys()
        for name, loss in ours.items():
            assert loss.item() == pytest.approx(theirs[name].item(), rel=1e-4), name
    for name, parameter in whole.network.named_parameters():
        torch.testing.assert_close(split.network.get_parameter(name), parameter, msg=name, rtol=1e-4, atol=1e-6)


def test_one_part_is_the_usual_step(synthetic: ImageData) -> None:
    assert len(build(synthetic, replace(SMALL, accumulation=4)).plan()) == len(build(synthetic).plan())
    task = build(replace(synthetic, train=synthetic.train.take(np.arange(66))), replace(SMALL, accumulation=4))
    sizes: list[int] = []
    task.network.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    train(task, range(1))
    assert sizes[:5] == [16, 16, 16, 16, 2], "the last batch has two images: one part"


def test_parts_must_hold_two_images() -> None:
    replace(SMALL, accumulation=32).check()
    with pytest.raises(ConfigurationError, match=r"--accumulation 33: must be at most 32, half of --batch-size 64"):
        replace(SMALL, accumulation=33).check()


# -- mirrored test -----------------------------------------------------------------------------------------------------


def test_flipped_test_averages_probabilities(synthetic: ImageData) -> None:
    task = build(synthetic)
    train(task, range(1))
    scores = evaluate(task.network, evaluation_batches(synthetic.test, synthetic, 10, CPU), flip=True)
    (images, labels) = next(evaluation_batches(synthetic.test, synthetic, 64, CPU))
    with torch.no_grad():
        network: Network = task.network.eval()
        mean = (network(images).logits.softmax(1) + network(images.flip(3)).logits.softmax(1)) / 2
    assert torch.equal(scores.predictions, mean.argmax(1))
    assert scores.accuracy == (mean.argmax(1) == labels).float().mean().item()
    assert scores.loss == pytest.approx(F.nll_loss(mean.log(), labels).item(), rel=1e-5)


def test_the_mirrored_test_comes_last_and_beside_the_plain_one(synthetic: ImageData) -> None:
    lines = train(task := build(synthetic, replace(SMALL, test_flip=True)), range(4))
    plain = train(build(synthetic), range(4))
    assert ["test_flip_accuracy" in line for line in lines] == [False, False, False, True]
    assert [{**line, "test_flip_accuracy": 0} for line in lines] == [
        {**line, "test_flip_accuracy": 0} for line in plain
    ]
    assert task.flip_accuracy == lines[-1]["test_flip_accuracy"]


# -- policies and memory layout ----------------------------------------------------------------------------------------


def test_policies_reach_the_batches(synthetic: ImageData) -> None:
    training = replace(SMALL, rand_augment=(1, 9))
    assert [policy.name for policy in build(synthetic, training).train.policies] == ["rand_augment"]
    assert [policy.name for policy in replace(SMALL, trivial_augment=True).policies()] == ["trivial_augment"]
    assert list(build(synthetic).train.policies) == []
    with pytest.raises(ConfigurationError, match="leave out --rand-augment"):
        replace(SMALL, rand_augment=(1, 9), trivial_augment=True).check()
    with pytest.raises(ConfigurationError, match="--rand-augment 0 9"):
        replace(SMALL, rand_augment=(0, 9)).check()


@pytest.mark.parametrize(("execution", "last"), [("share", True), ("plain", False)])
def test_channels_last_goes_with_the_execution(synthetic: ImageData, execution: str, last: bool) -> None:
    task = build(synthetic, execution=execution)
    wide = [module for module in task.network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1]
    assert (
        all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in wide if conv.groups == 1) == last
    )
