"""Feedback from the evaluation network: distances against formulas, heads against published shapes and sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cdarts.distillation import (
    FEEDBACKS,
    FUSIONS,
    AuxiliaryPool,
    Embedding,
    StagePool,
    cosine,
    fuse_batch,
    fuse_none,
    fuse_sum,
    kl,
    kl_mean,
    mse,
    smooth_l1,
)
from cdarts.randomness import generator, seeded


def logits(stream: str, batch: int = 4, classes: int = 10) -> Tensor:
    return 3 * torch.randn(batch, classes, dtype=torch.float64, generator=generator(0, stream))


# -- distances ---------------------------------------------------------------------------------------------------------


def by_hand_kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 / N * sum_i p_i log(p_i / q_i), in plain numbers."""

    def softened(row: list[float]) -> list[float]:
        exponentials = [math.exp(value / temperature) for value in row]
        return [value / sum(exponentials) for value in exponentials]

    total = 0.0
    for f_s, f_e in zip(student.tolist(), teacher.tolist(), strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(softened(f_e), softened(f_s), strict=True))
    return temperature**2 / len(student) * total


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_kl_is_equations_4_and_5(temperature: float, classes: int) -> None:
    student, teacher = logits("student", classes=classes), logits("teacher", classes=classes)
    expected = by_hand_kl(student, teacher, temperature)
    assert float(kl(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)
    assert float(kl_mean(student, teacher, temperature)) == pytest.approx(expected / classes, rel=1e-12)
    # of the mean over all elements, as the authors write it
    mean = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1), reduction="none"
    )
    assert float(kl_mean(student, teacher, temperature)) == pytest.approx(float(mean.mean()), rel=1e-10)


def test_kl_is_taken_from_the_teacher() -> None:
    student, teacher = logits("student"), logits("teacher")
    assert float(kl(student, teacher, 2.0)) != pytest.approx(float(kl(teacher, student, 2.0)), rel=1e-3)


def test_kl_of_a_known_pair() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 log 3/2 + 1/4 log 1/2; logits are twice the log odds at T = 2."""
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(kl(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-12)


def test_gradient_of_kl_on_the_student() -> None:
    """T / N * (q - p)."""
    student, teacher = logits("student").requires_grad_(), logits("teacher")
    kl(student, teacher, 2.0).backward()
    expected = 2.0 / 4 * (F.softmax(student.detach() / 2, dim=1) - F.softmax(teacher / 2, dim=1))
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-12)


def test_nothing_is_detached() -> None:
    """Whether the teacher gets a gradient is the algorithm's decision."""
    for feedback in FEEDBACKS.values():
        student, teacher = logits("student").requires_grad_(), logits("teacher").requires_grad_()
        feedback(student, teacher, 2.0).backward()
        for tensor in (student, teacher):
            assert tensor.grad is not None
            assert tensor.grad.any()


def test_distances_of_raw_logits() -> None:
    student, teacher = logits("student"), logits("teacher")
    pairs = [list(zip(row, other, strict=True)) for row, other in zip(student.tolist(), teacher.tolist(), strict=True)]
    errors = [abs(a - b) for row in pairs for a, b in row]
    assert min(errors) < 1 < max(errors), "both branches of smooth L1 take part"
    expected_l1 = 4 * sum(e**2 / 2 if e < 1 else e - 0.5 for e in errors) / len(errors)
    assert float(smooth_l1(student, teacher, 2.0)) == pytest.approx(expected_l1, rel=1e-12)
    expected_mse = 4 * sum(e**2 for e in errors) / len(errors)
    assert float(mse(student, teacher, 2.0)) == pytest.approx(expected_mse, rel=1e-12)
    similarities = [
        sum(a * b for a, b in row) / math.sqrt(sum(a * a for a, _ in row) * sum(b * b for _, b in row)) for row in pairs
    ]
    assert float(cosine(student, teacher, 2.0)) == pytest.approx(4 * (1 - sum(similarities) / 4), rel=1e-12)


@pytest.mark.parametrize("name", FEEDBACKS)
def test_every_distance_is_zero_at_the_teacher_and_positive_elsewhere(name: str) -> None:
    feedback, teacher = FEEDBACKS[name], logits("teacher")
    assert float(feedback(teacher, teacher, 2.0)) == pytest.approx(0.0, abs=1e-12)
    value = feedback(logits("student"), teacher, 2.0)
    assert value.shape == ()
    assert float(value) > 0


@given(st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6), st.sampled_from(list(FEEDBACKS)))
def test_every_distance_is_finite(values: list[float], name: str) -> None:
    student, teacher = (torch.tensor(part, dtype=torch.float32).reshape(1, 3) for part in (values[:3], values[3:]))
    result = FEEDBACKS[name](student, teacher, 2.0)
    assert result.isfinite()
    assert float(result) >= -1e-3


@pytest.mark.parametrize("name", FEEDBACKS)
def test_following_a_distance_leads_to_the_teacher(name: str) -> None:
    student, teacher = logits("student").requires_grad_(), logits("teacher")
    optimizer = torch.optim.Adam([student], lr=0.1)
    start = float(FEEDBACKS[name](student, teacher, 2.0).detach())
    for _ in range(200):
        optimizer.zero_grad()
        loss = FEEDBACKS[name](student, teacher, 2.0)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 * start


# -- fusion ------------------------------------------------------------------------------------------------------------


def test_fusions() -> None:
    levels = [logits("one"), logits("two"), logits("three")]
    (total,) = fuse_sum(levels)
    torch.testing.assert_close(total, levels[0] + levels[1] + levels[2])
    (batch,) = fuse_batch(levels)
    assert batch.shape == (12, 10)
    assert torch.equal(batch[4:8], levels[1])
    assert all(torch.equal(a, b) for a, b in zip(fuse_none(levels), levels, strict=True))


@pytest.mark.parametrize(("name", "shapes"), [("sum", [(4, 10)]), ("batch", [(12, 10)]), ("levels", [(4, 10)] * 3)])
def test_shapes_of_every_fusion(name: str, shapes: list[tuple[int, int]]) -> None:
    assert set(FUSIONS) == {"sum", "batch", "levels"}
    fused = FUSIONS[name]([logits("one"), logits("two"), logits("three")])
    assert [tuple(x.shape) for x in fused] == shapes


# -- heads -------------------------------------------------------------------------------------------------------------


def sides_of(head: Embedding, features: Tensor) -> list[tuple[int, ...]]:
    """Shapes after the pool, after the 2x2 convolution, and at the end."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape)))
        for module in (head.pool, head.expand)
    ]
    seen.append(tuple(head(features).shape))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("channels", "side", "pooled", "expanded"),
    [
        (128, 16, 6, 5),  # CIFAR, after the first reduction
        (256, 8, 2, 1),  # CIFAR, after the second
        (128, 14, 5, 4),  # ImageNet
        (256, 7, 2, 1),  # ImageNet: a 5x5 pool
        (64, 4, 2, 1),  # smaller than the pool
        (64, 3, 2, 1),
        (64, 2, 2, 1),
        (64, 1, 2, 1),
        (64, 9, 2, 1),
        (64, 10, 3, 2),
    ],
)
def test_shapes_in_an_embedding(channels: int, side: int, pooled: int, expanded: int) -> None:
    head = Embedding(channels, 10, pool=StagePool(), affine=False)
    shapes = sides_of(head, torch.randn(2, channels, side, side))
    assert shapes == [(2, channels, pooled, pooled), (2, 768, expanded, expanded), (2, 10)]


@pytest.mark.parametrize("side", [1, 2, 4, 7, 8, 9, 16])
def test_the_auxiliary_pool_leads_to_two_by_two(side: int) -> None:
    assert AuxiliaryPool()(torch.randn(1, 3, side, side)).shape == (1, 3, 2, 2)


def test_pools_equal_their_definitions() -> None:
    x = torch.randn(2, 3, 8, 8, generator=generator(0, "x"))
    corner = x[:, :, :6, :6].mean(dim=(2, 3))
    torch.testing.assert_close(StagePool()(x)[:, :, 0, 0], corner)
    torch.testing.assert_close(StagePool()(x)[:, :, 1, 1], x[:, :, 2:, 2:].mean(dim=(2, 3)))
    torch.testing.assert_close(AuxiliaryPool()(x)[:, :, 1, 0], x[:, :, 3:, :5].mean(dim=(2, 3)))
    seven = x[:, :, :7, :7]
    for pool in (StagePool(), AuxiliaryPool()):
        torch.testing.assert_close(pool(seven)[:, :, 0, 1], seven[:, :, :5, 2:].mean(dim=(2, 3)))
    four = x[:, :, :4, :4]
    torch.testing.assert_close(StagePool()(four)[:, :, 1, 0], four[:, :, 2:, :2].mean(dim=(2, 3)))


@pytest.mark.parametrize(("channels", "exact", "published"), [(128, 417_290, 0.417), (256, 433_674, 0.434)])
def test_parameters_of_the_cifar_heads(channels: int, exact: int, published: float) -> None:
    head = Embedding(channels, 10, pool=StagePool(), affine=False)
    count = sum(parameter.numel() for parameter in head.parameters())
    assert count == exact == channels * 128 + 128 * 768 * 4 + 768 * 10 + 10
    assert round(count / 1e6, 3) == published


def test_an_embedding_by_hand() -> None:
    with seeded(0, "head"):
        head = Embedding(4, 10, pool=StagePool(), affine=True).double().eval()
    features = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=generator(0, "features"))
    x = F.avg_pool2d(features.clamp(min=0), 6, 2)
    x = torch.einsum("oc,bchw->bohw", head.squeeze.weight[:, :, 0, 0], x) / math.sqrt(1 + 1e-5)
    x = torch.einsum("ochw,bchw->bo", head.expand.weight, x.clamp(min=0)) / math.sqrt(1 + 1e-5)
    expected = x.clamp(min=0) @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(features), expected, rtol=1e-10, atol=1e-12)


def test_variants_of_an_embedding() -> None:
    frozen = Embedding(4, 10, pool=StagePool(), affine=False)
    assert not any("norm" in name for name, _ in frozen.named_parameters())
    imagenet = Embedding(4, 10, pool=AuxiliaryPool(), affine=True, last_batchnorm=False)
    assert isinstance(imagenet.expand_norm, nn.Identity)
    assert {name for name, _ in imagenet.named_parameters() if "norm" in name} == {
        "squeeze_norm.weight",
        "squeeze_norm.bias",
    }
