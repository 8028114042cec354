"""The opponent: its size follows the picture's, it learns, its terms are those of the losses, it resumes exactly."""

from dataclasses import replace

import pytest
import torch

from spae_core.adversary import Adversary
from spae_core.discriminator import Discriminator
from spae_core.losses import discriminator_adversarial_loss, generator_adversarial_loss, r1_penalty
from spae_core.training_config import TrainingConfig, tiny_recipe


def recipe(**adversarial: object) -> TrainingConfig:
    tiny = tiny_recipe()
    return replace(tiny, adversarial=replace(tiny.adversarial, base_channels=4, **adversarial))


def adversary(size: int = 16, **adversarial: object) -> Adversary:
    torch.manual_seed(0)
    return Adversary(recipe(**adversarial), image_size_px=size, device="cpu")


def pictures(offset: float, seed: int, size: int = 16) -> torch.Tensor:
    return offset + 0.5 * torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "blocks"), [(8, 1), (16, 2), (32, 3), (48, 3), (64, 4), (96, 4), (128, 5)])
def test_the_discriminator_halves_pictures_until_about_four_pixels_are_left(size, blocks):
    discriminator = adversary(size).discriminator
    assert isinstance(discriminator, Discriminator)
    assert len(discriminator.blocks) == blocks
    assert 4 <= size // 2**blocks < 8
    assert discriminator(torch.rand(1, 3, size, size)).shape == (1,)


def test_the_generators_loss_reaches_the_pictures_and_not_the_discriminator():
    opponent = adversary()
    decoded = pictures(0, 0).requires_grad_()
    loss = opponent.generator_loss(decoded)
    assert loss.item() == generator_adversarial_loss(opponent.discriminator(decoded)).item()
    loss.backward()
    assert decoded.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in opponent.discriminator.parameters())


def test_the_terms_of_a_step_are_those_of_the_losses():
    opponent = adversary(r1_cost=10.0, lecam_weight=1e-4)
    real, decoded = pictures(0.5, 1), pictures(0, 2)
    with torch.no_grad():
        logits = opponent.discriminator(real), opponent.discriminator(decoded)
    penalty = r1_penalty(opponent.discriminator, real, cost=10.0)
    terms = opponent.step(real, decoded, 1e-3, 0)
    assert terms["discriminator"].item() == pytest.approx(discriminator_adversarial_loss(*logits).item())
    assert terms["r1"].item() == pytest.approx(penalty.item())
    # LeCam's averages start at 0: relu(mean D(I) − 0)² + relu(0 − mean D(Î))².
    expected = max(0, logits[0].mean().item()) ** 2 + max(0, -logits[1].mean().item()) ** 2
    assert terms["lecam"].item() == pytest.approx(expected)
    assert not any(term.requires_grad for term in terms.values())


def test_it_learns_to_tell_real_from_decoded():
    opponent = adversary(r1_cost=0.0)
    losses = [
        opponent.step(pictures(0.5, step), pictures(0, 100 + step), 3e-3, step)["discriminator"].item()
        for step in range(40)
    ]
    assert losses[0] > 1
    assert losses[-1] < 0.3
    real, decoded = pictures(0.5, 99), pictures(0, 98)
    assert opponent.generator_loss(real) < opponent.generator_loss(decoded)


def test_r1_some_pictures_at_a_time_is_r1_of_the_batch():
    real, decoded = pictures(0.5, 1), pictures(0, 2)
    weights, penalties = [], []
    for at_once in (4, 3, 1):
        opponent = adversary(r1_cost=100.0, r1_pictures_at_once=at_once)
        penalties.append(opponent.step(real, decoded, 1e-3, 0)["r1"].item())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in opponent.discriminator.parameters()]))
    assert penalties == pytest.approx([penalties[0]] * 3)
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("changes", "moves"), [({"r1_cost": 1e4}, True), ({"lecam_weight": 1e4}, True), ({}, False)])
def test_the_regularizers_change_what_is_learned(changes, moves):
    def weights(opponent: Adversary) -> torch.Tensor:
        for step in range(2):
            opponent.step(pictures(0.5, step), pictures(0, 100 + step), 1e-2, step)
        return torch.cat([parameter.detach().flatten() for parameter in opponent.discriminator.parameters()])

    plain = {"r1_cost": 0.0, "lecam_weight": 0.0}
    same = torch.equal(weights(adversary(**plain)), weights(adversary(**(plain | changes))))
    assert same != moves


def test_lazy_r1_comes_every_few_steps_and_never_at_cost_0():
    opponent = adversary(r1_every=3)
    seen = [step for step in range(7) if "r1" in opponent.step(pictures(0.5, 1), pictures(0, 2), 1e-3, step)]
    assert seen == [0, 3, 6]
    assert "r1" not in adversary(r1_cost=0.0).step(pictures(0.5, 1), pictures(0, 2), 1e-3, 0)


def test_the_learning_rate_is_the_trainers():
    opponent = adversary()
    before = [parameter.detach().clone() for parameter in opponent.discriminator.parameters()]
    opponent.step(pictures(0.5, 1), pictures(0, 2), 0.0, 0)
    assert all(map(torch.equal, before, opponent.discriminator.parameters()))
    opponent.step(pictures(0.5, 1), pictures(0, 2), 1e-3, 1)
    assert not any(map(torch.equal, before, opponent.discriminator.parameters()))


def test_a_resumed_opponent_goes_on_as_if_unbroken():
    unbroken, broken = adversary(), adversary()
    for step in range(4):
        expected = unbroken.step(pictures(0.5, step), pictures(0, 10 + step), 1e-3, step)
    for step in range(2):
        broken.step(pictures(0.5, step), pictures(0, 10 + step), 1e-3, step)
    torch.manual_seed(9)
    resumed = Adversary(recipe(), image_size_px=16, device="cpu")
    resumed.load_state_dict(broken.state_dict())
    for step in (2, 3):
        terms = resumed.step(pictures(0.5, step), pictures(0, 10 + step), 1e-3, step)
    assert {name: term.item() for name, term in terms.items()} == {name: term.item() for name, term in expected.items()}
    assert torch.equal(resumed.lecam.ema_real, unbroken.lecam.ema_real)
    assert all(map(torch.equal, resumed.discriminator.parameters(), unbroken.discriminator.parameters()))
