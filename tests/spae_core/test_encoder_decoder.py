"""The paper's networks: their parameters counted by hand, their strides, and what each cell can see."""

from dataclasses import replace

import pytest
import torch

from spae_core.configs import NetworkConfig
from spae_core.decoder import Decoder
from spae_core.encoder import Encoder
from spae_core.layers import OwnershipEmbedding, ResidualBlock
from spae_core.presets import preset


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def block(n: int, m: int) -> int:
    """GroupNorm(n), 3×3 n→m, GroupNorm(m), 3×3 m→m, no biases; a 1×1 shortcut where the width changes."""
    return 2 * n + 9 * n * m + 2 * m + 9 * m * m + (n * m if n != m else 0)


def test_the_papers_encoder_has_23_7_million_parameters():
    # F = 128, multipliers (1, 2, 2, 4), 2 blocks a scale, 2 middle blocks, C = 1536:
    #   3×3 conv 3→128                      9·3·128 + 128            =      3,584
    #   128→128 twice                       2 · 295,424              =    590,848
    #   128→256, 256→256                    918,272 + 1,180,672      =  2,098,944
    #   256→256 twice                       2 · 1,180,672            =  2,361,344
    #   256→512, 512→512                    3,671,552 + 4,720,640    =  8,392,192
    #   512→512 twice in the middle         2 · 4,720,640            =  9,441,280
    #   GroupNorm(512), 1×1 conv 512→1536   1,024 + 786,432 + 1,536  =    788,992
    #   together                                                       23,677,184
    by_hand = (9 * 3 * 128 + 128) + 2 * block(128, 128) + block(128, 256) + block(256, 256)
    by_hand += 2 * block(256, 256) + block(256, 512) + block(512, 512) + 2 * block(512, 512)
    by_hand += 2 * 512 + 512 * 1536 + 1536
    assert by_hand == 23_677_184
    with torch.device("meta"):
        assert count(Encoder(preset("spae-b-128").encoder, 1536)) == 23_677_184


def test_the_papers_decoder_has_35_7_million_parameters_and_both_59_4():
    #   3×3 conv 1536→512                     9·1536·512 + 512         =  7,078,400
    #   512→512 twice in the middle           2 · 4,720,640            =  9,441,280
    #   512→512 twice                         2 · 4,720,640            =  9,441,280
    #   up: 3×3 conv 512→512                  9·512·512 + 512          =  2,359,808
    #   512→256, 256→256                      1,902,080 + 1,180,672    =  3,082,752
    #   up 256                                                            590,080
    #   256→256 twice                         2 · 1,180,672            =  2,361,344
    #   up 256                                                            590,080
    #   256→128, 128→128                      475,904 + 295,424        =    771,328
    #   GroupNorm(128), 3×3 conv 128→3        256 + 3,456 + 3          =      3,715
    #   together                                                         35,720,067
    def up(n: int) -> int:
        return 9 * n * n + n

    by_hand = (9 * 1536 * 512 + 512) + 4 * block(512, 512)
    by_hand += up(512) + block(512, 256) + block(256, 256)
    by_hand += up(256) + 2 * block(256, 256)
    by_hand += up(256) + block(256, 128) + block(128, 128)
    by_hand += 2 * 128 + 9 * 128 * 3 + 3
    assert by_hand == 35_720_067
    with torch.device("meta"):
        assert count(Decoder(preset("spae-b-128").decoder, 1536)) == 35_720_067
    assert round((23_677_184 + 35_720_067) / 1e6, 1) == 59.4


def test_a_residual_block_is_its_formula():
    torch.manual_seed(0)
    module = ResidualBlock(8, 16, 4)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    inputs = torch.randn(2, 8, 5, 5)

    def normalised(values: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
        grouped = values.reshape(2, 4, -1)
        mean, variance = grouped.mean(dim=2, keepdim=True), grouped.var(dim=2, keepdim=True, unbiased=False)
        flat = ((grouped - mean) / (variance + 1e-6).sqrt()).view_as(values)
        return flat * norm.weight[:, None, None] + norm.bias[:, None, None]

    def swish(values: torch.Tensor) -> torch.Tensor:
        return values * torch.sigmoid(values)

    conv = torch.nn.functional.conv2d
    hidden = conv(swish(normalised(inputs, module.norm1)), module.conv1.weight, padding=1)
    hidden = conv(swish(normalised(hidden, module.norm2)), module.conv2.weight, padding=1)
    expected = hidden + torch.einsum("bchw,oc->bohw", inputs, module.shortcut.weight[:, :, 0, 0])
    torch.testing.assert_close(module(inputs), expected, rtol=1e-4, atol=1e-3)
    assert isinstance(ResidualBlock(8, 8, 4).shortcut, torch.nn.Identity)


SMALL = NetworkConfig(base_channels=8, channel_multipliers=(1, 2), num_residual_blocks=1, norm_groups=4)


@pytest.mark.parametrize(
    ("network", "stride"),
    [
        (SMALL, 2),
        (replace(SMALL, patch_size_px=2), 4),
        (replace(SMALL, patch_size_px=8, channel_multipliers=(1,)), 8),
        (replace(SMALL, channel_multipliers=(1, 2, 2, 4)), 8),
    ],
)
def test_the_encoder_divides_the_side_by_its_stride_and_the_decoder_multiplies_it(network, stride):
    images = torch.rand(2, 3, 16, 24)
    assert network.downsampling == stride
    latents = Encoder(network, 5)(images)
    assert latents.shape == (2, 5, 16 // stride, 24 // stride)
    assert Decoder(network, 5)(latents).shape == images.shape


def with_idle_blocks(module: torch.nn.Module) -> None:
    """Make every residual block add nothing, so that what is around the blocks shows."""
    for child in module.modules():
        if isinstance(child, ResidualBlock):
            torch.nn.init.zeros_(child.conv2.weight)


@pytest.mark.parametrize("patch", [1, 2])
def test_around_its_blocks_the_encoder_is_stem_mean_of_squares_norm_and_1x1(patch):
    torch.manual_seed(0)
    encoder = Encoder(replace(SMALL, channel_multipliers=(1, 1), patch_size_px=patch), 5)
    with_idle_blocks(encoder)
    images = torch.rand(2, 3, 16, 16)
    hidden = encoder.stem(images)
    side = 16 // patch
    assert hidden.shape == (2, 8, side, side)
    pooled = hidden.view(2, 8, side // 2, 2, side // 2, 2).mean(dim=(3, 5))
    normed = encoder.norm(pooled)
    expected = torch.einsum("bchw,oc->bohw", normed * normed.sigmoid(), encoder.to_latents.weight[:, :, 0, 0])
    torch.testing.assert_close(encoder(images), expected + encoder.to_latents.bias[:, None, None])


@pytest.mark.parametrize("patch", [1, 2])
def test_around_its_blocks_the_decoder_repeats_each_cell_twice_and_lays_patches_out_in_place(patch):
    torch.manual_seed(0)
    decoder = Decoder(replace(SMALL, channel_multipliers=(1, 1), patch_size_px=patch), 5)
    with_idle_blocks(decoder)
    latents = torch.rand(2, 5, 4, 4)
    wide = decoder.from_latents(latents).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    normed = decoder.norm(decoder.scales[1][0].conv(wide))
    values = decoder.to_pixels(normed * normed.sigmoid())
    # Channel c·p² + i·p + j is row i, column j of the patch in colour c.
    expected = torch.empty(2, 3, 8 * patch, 8 * patch)
    for i in range(patch):
        for j in range(patch):
            expected[:, :, i::patch, j::patch] = values[:, i * patch + j :: patch * patch]
    torch.testing.assert_close(decoder(latents), expected)


def test_pictures_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    encoder, decoder = Encoder(SMALL, 5), Decoder(SMALL, 5)
    images = torch.rand(3, 3, 16, 16)
    latents = encoder(images)
    pictures = decoder(latents)
    for index in range(3):
        torch.testing.assert_close(encoder(images[index : index + 1])[0], latents[index])
        torch.testing.assert_close(decoder(latents[index : index + 1])[0], pictures[index])


@pytest.mark.parametrize("half", [Encoder, Decoder])
def test_gradients_reach_every_parameter(half):
    torch.manual_seed(0)
    module = half(SMALL, 5, ownership_layers=3)
    inputs = torch.rand(2, 3, 8, 8) if half is Encoder else torch.rand(2, 5, 4, 4)
    owner = torch.arange(16).view(4, 4) % 3
    module(inputs, owner).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_ownership_embedding_starts_as_nothing_and_then_tells_layers_apart():
    embedding = OwnershipEmbedding(3, 2)
    features = torch.zeros(2, 2, 2, 2)
    shared = torch.tensor([[0, 1], [2, 0]])
    assert torch.equal(embedding(features, shared), features)
    with torch.no_grad():
        embedding.vectors.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]))
    assert embedding(features, shared)[1].tolist() == [[[1, 2], [3, 1]], [[-1, -2], [-3, -1]]]
    own = torch.stack([shared, torch.full((2, 2), 2)])
    out = embedding(features, own)
    assert out[0].tolist() == [[[1, 2], [3, 1]], [[-1, -2], [-3, -1]]]
    assert out[1].tolist() == [[[3, 3], [3, 3]], [[-3, -3], [-3, -3]]]
