"""Appearance, adversarial and entropy losses against hand numbers and plain loops."""

import math

import pytest
import torch
from torch import Tensor

from spae_core.losses import (
    LeCamRegularizer,
    discriminator_adversarial_loss,
    dynamic_weight,
    entropy_loss,
    generator_adversarial_loss,
    negative_squared_distances,
    r1_penalty,
    reconstruction_loss,
    sample_rows,
)

LOG_2 = math.log(2.0)


def test_reconstruction_is_the_mean_squared_error_of_all_pixels():
    images = torch.tensor([0.0, 1.0, 0.5, 0.5]).view(1, 1, 2, 2)
    targets = torch.tensor([0.0, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    assert reconstruction_loss(images, targets).item() == pytest.approx((1.0 + 0.25) / 4)


def test_reconstruction_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\), got \(1, 3, 8, 8\)"):
        reconstruction_loss(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))


def test_an_undecided_discriminator_costs_log_2_a_side():
    undecided = torch.zeros(4)
    assert generator_adversarial_loss(undecided).item() == pytest.approx(LOG_2)
    assert discriminator_adversarial_loss(undecided, undecided).item() == pytest.approx(2 * LOG_2)


def test_adversarial_losses_are_the_negative_log_probabilities():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    expected_generator = -sum(math.log(1 / (1 + math.exp(-x))) for x in fake.tolist()) / 2
    expected_real = -sum(math.log(1 / (1 + math.exp(-x))) for x in real.tolist()) / 2
    expected_fake = -sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in fake.tolist()) / 2
    assert generator_adversarial_loss(fake).item() == pytest.approx(expected_generator)
    assert discriminator_adversarial_loss(real, fake).item() == pytest.approx(expected_real + expected_fake)


def test_the_generator_still_gets_a_gradient_when_the_discriminator_is_sure():
    logits = torch.tensor([-50.0], requires_grad=True)
    generator_adversarial_loss(logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1.0)


def test_r1_of_a_quadratic_discriminator_is_the_squared_length_of_its_slope():
    # D(x) = a/2 Σ x², so ∇D = a·x, and the penalty is cost · mean_b a² Σ x²; its slope in a is 2/a times it.
    a = torch.tensor(3.0, requires_grad=True)
    images = torch.tensor([1.0, 2.0, 0.0, 1.0]).view(2, 1, 1, 2)

    def discriminator(x: Tensor) -> Tensor:
        return a / 2 * x.square().flatten(1).sum(dim=1)

    penalty = r1_penalty(discriminator, images, cost=10.0)
    assert penalty.item() == pytest.approx(10.0 * 9.0 * (5.0 + 1.0) / 2)
    penalty.backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(10.0 * 2 * 3.0 * 3.0)
    assert not images.requires_grad


def test_r1_works_inside_no_grad_blocks_and_is_zero_for_a_flat_discriminator():
    with torch.no_grad():
        assert r1_penalty(lambda x: 0.0 * x.flatten(1).sum(dim=1), torch.rand(2, 3, 4, 4)).item() == 0.0


def test_lecam_compares_with_the_averages_of_the_steps_before():
    lecam = LeCamRegularizer(decay=0.5)
    first = lecam(torch.tensor([2.0, 4.0]), torch.tensor([-1.5, -0.5]))  # means 3 and -1, averages 0 and 0
    assert first.item() == pytest.approx(3.0**2 + 1.0**2)
    assert (lecam.ema_real.item(), lecam.ema_fake.item()) == (1.5, -0.5)
    second = lecam(torch.tensor([1.0]), torch.tensor([0.0]))
    assert second.item() == pytest.approx((1.0 + 0.5) ** 2 + (1.5 - 0.0) ** 2)
    assert (lecam.ema_real.item(), lecam.ema_fake.item()) == (1.25, -0.25)


def test_lecam_is_zero_when_real_logits_lie_below_the_fake_average():
    lecam = LeCamRegularizer()
    lecam.load_state_dict({"ema_real": torch.tensor(-2.0), "ema_fake": torch.tensor(5.0)})
    assert lecam(torch.tensor([4.0]), torch.tensor([3.0])).item() == 0.0


def test_lecam_averages_have_no_gradient_survive_saving_and_rest_in_evaluation():
    lecam = LeCamRegularizer(decay=0.9)
    real = torch.tensor([1.0], requires_grad=True)
    lecam(real, torch.tensor([0.0])).backward()
    assert not lecam.ema_real.requires_grad
    copy = LeCamRegularizer(decay=0.9)
    copy.load_state_dict(lecam.state_dict())
    assert copy.ema_real.item() == pytest.approx(0.1)
    copy.eval()(torch.tensor([9.0]), torch.tensor([9.0]))
    assert copy.ema_real.item() == pytest.approx(0.1)


def test_lecam_refuses_a_decay_of_one():
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\), got 1.0"):
        LeCamRegularizer(decay=1.0)


def test_the_dynamic_weight_is_the_ratio_and_stops_gradients():
    appearance = torch.tensor(3.0, requires_grad=True)
    semantic = torch.tensor(12.0, requires_grad=True)
    weight = dynamic_weight(appearance, semantic)
    assert weight.item() == 0.25
    assert not weight.requires_grad
    (appearance + weight * semantic).backward()
    assert appearance.grad is not None
    assert semantic.grad is not None
    assert (appearance.grad.item(), semantic.grad.item()) == (1.0, 0.25)


def test_the_dynamic_weight_stays_finite_when_the_semantic_loss_is_zero():
    assert math.isfinite(dynamic_weight(torch.tensor(1.0), torch.tensor(0.0)).item())


@pytest.mark.parametrize(
    ("latents", "expected"),
    [
        ([[1.0], [-1.0]], -LOG_2),  # both decided, both codes used
        ([[1.0], [1.0]], 0.0),  # both decided for one code
        ([[0.0], [0.0]], 0.0),  # both undecided
    ],
)
def test_entropy_of_two_codes_by_hand(latents, expected):
    codebook = torch.tensor([[1.0], [-1.0]])
    assert entropy_loss(torch.tensor(latents), codebook).item() == pytest.approx(expected, abs=1e-6)


def plain_entropy_loss(latents: Tensor, codebook: Tensor, temperature: float) -> float:
    rows = []
    for z in latents.tolist():
        weights = [
            math.exp(-sum((a - b) ** 2 for a, b in zip(z, e, strict=True)) / temperature) for e in codebook.tolist()
        ]
        rows.append([weight / sum(weights) for weight in weights])
    each = [-sum(p * math.log(p) for p in row) for row in rows]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return sum(each) / len(rows) + sum(p * math.log(p) for p in mean)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_entropy_is_that_of_plain_loops_whatever_the_chunks(chunk_size):
    generator = torch.Generator().manual_seed(0)
    latents, codebook = torch.randn(7, 3, generator=generator), torch.randn(5, 3, generator=generator)
    result = entropy_loss(latents, codebook, temperature=0.7, chunk_size=chunk_size)
    assert result.item() == pytest.approx(plain_entropy_loss(latents, codebook, 0.7), abs=1e-5)


def test_the_entropy_gradient_does_not_depend_on_chunks_and_is_finite_with_unreachable_codes():
    generator = torch.Generator().manual_seed(1)
    codebook = torch.cat([torch.randn(6, 4, generator=generator), torch.full((1, 4), 1e3)])
    gradients = []
    for chunk_size in (2, 64):
        latents = torch.randn(9, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        entropy_loss(latents, codebook, temperature=0.5, chunk_size=chunk_size).backward()
        assert latents.grad is not None
        gradients.append(latents.grad)
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_descending_the_entropy_loss_spreads_collapsed_latents_over_more_codes():
    generator = torch.Generator().manual_seed(3)
    codebook = torch.nn.functional.normalize(torch.randn(32, 4, generator=generator), dim=1)
    latents = (codebook[0] + 0.3 * torch.randn(64, 4, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=0.05)

    def num_codes_in_use() -> int:
        return len(torch.cdist(latents.detach(), codebook).argmin(dim=1).unique())

    before = num_codes_in_use()
    for _ in range(60):
        optimizer.zero_grad()
        entropy_loss(latents, codebook).backward()
        optimizer.step()
    assert num_codes_in_use() > before


def test_distances_are_cdist_up_to_a_constant_of_the_row():
    generator = torch.Generator().manual_seed(4)
    latents, codebook = torch.randn(6, 5, generator=generator), torch.randn(8, 5, generator=generator)
    expected = -torch.cdist(latents, codebook).square() + latents.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(negative_squared_distances(latents, codebook), expected, atol=1e-4, rtol=1e-4)


def test_sampled_rows_are_distinct_and_repeat_with_the_seed():
    rows = torch.arange(100)
    first, second = (sample_rows(rows, 10, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first.unique()) == 10
    assert torch.equal(sample_rows(rows, 100, None), rows)
    assert torch.equal(sample_rows(rows, None, None), rows)
