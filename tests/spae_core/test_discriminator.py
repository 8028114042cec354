"""Shapes, size and gradient of the discriminator."""

import pytest
import torch

from spae_core.discriminator import Discriminator, DiscriminatorBlock
from spae_core.losses import discriminator_adversarial_loss, r1_penalty


def small_discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(image_size_px=16, base_channels=4, channel_multipliers=(1, 2))


def test_the_discriminator_for_128_px_has_the_parameters_counted_by_hand():
    # conv_in 3,584; blocks 475,520 + 1,901,312 + 3 × 4,981,760; conv_out 2,359,808; linear 4,194,816 + 513.
    with torch.device("meta"):
        discriminator = Discriminator()
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 23_880_833


def test_every_image_gets_one_logit_that_its_neighbours_do_not_change():
    discriminator = small_discriminator()
    images = torch.rand(3, 3, 16, 16)
    logits = discriminator(images)
    assert logits.shape == (3,)
    torch.testing.assert_close(discriminator(images[1:2]), logits[1:2])


def test_a_block_halves_the_size_and_keeps_the_variance_of_its_two_paths():
    block = DiscriminatorBlock(4, 6)
    inputs = torch.randn(2, 4, 8, 8)
    assert block(inputs).shape == (2, 6, 4, 4)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    skipped = block.skip(torch.nn.functional.avg_pool2d(inputs, 2))
    torch.testing.assert_close(block(inputs), skipped / 2**0.5)


def test_gradients_reach_every_parameter_and_the_image():
    discriminator = small_discriminator()
    real, fake = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)
    loss = discriminator_adversarial_loss(discriminator(real), discriminator(fake))
    (loss + r1_penalty(discriminator, real)).backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert fake.grad is not None
    assert fake.grad.abs().max() > 0


def test_a_few_steps_tell_bright_images_from_dark_ones():
    discriminator = small_discriminator()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    for _ in range(60):
        real, fake = 0.5 + 0.5 * torch.rand(8, 3, 16, 16), 0.5 * torch.rand(8, 3, 16, 16)
        loss = discriminator_adversarial_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert discriminator(real).min() > discriminator(fake).max()


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 16, 16), (3, 16, 16), (2, 3, 16, 8)])
def test_images_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 3, 16, 16\), got"):
        small_discriminator()(torch.zeros(shape))


def test_a_size_that_the_blocks_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="expected a multiple of 32 for 5 blocks, got 100"):
        Discriminator(image_size_px=100)
