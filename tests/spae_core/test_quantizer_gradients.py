"""What training sees of the quantizer: its losses, and the gradients through it, against loops and by hand."""

import numpy as np
import pytest
import torch
from quantizer_reference import GRIDS, KINDS, codebook_of, on_the_lattice, quantizer_of, triple_loop

from spae_core.configs import PyramidConfig, QuantizerConfig
from spae_core.quantizer import StreamingAverageQuantizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_commitment_loss_and_its_gradient_are_those_of_loops(kind, reduction):
    grids, beta = GRIDS["tiny"], 0.25
    latents, embeddings = on_the_lattice((2, 4, 4, 4), 11).requires_grad_(), on_the_lattice((10, 4), 12)
    reference = triple_loop(latents.detach(), embeddings, grids, kind)
    expected, slope = 0.0, np.zeros(latents.shape)
    for layer in range(len(grids)):
        misses = latents.detach().numpy() - reference.prefixes[:, layer]  # NaN where nothing is owned yet
        num_cells = int((~np.isnan(misses[:, 0])).sum())
        share = beta / num_cells / (1 if reduction == "sum" else 4)
        expected += share * np.nansum(misses.astype(np.float64) ** 2)
        slope += 2 * share * np.nan_to_num(misses)
    options = {"kind": kind, "commitment_weight": beta, "commitment_reduction": reduction}
    assignment = quantizer_of(grids, embeddings, **options).assign(latents)
    assert assignment.commitment_loss.item() == pytest.approx(expected, rel=1e-5)
    assert assignment.codebook_loss.item() == 0
    assignment.commitment_loss.backward()
    np.testing.assert_allclose(latents.grad.numpy(), slope, atol=1e-6)


def test_cells_that_hold_only_given_words_are_left_out_of_the_commitment_loss():
    embeddings = torch.tensor([[0.0], [1.0]])
    quantizer = quantizer_of(((1, 1), (2, 1)), embeddings, commitment_weight=1.0)
    # Layer 1 owns the lower cell only. Its given word 0 misses 1 by 1: not counted. Layer 2 finds 1 for the upper
    # cell (missing .25) and, for the lower, 1 + (1 − 0) = 2 -> word 1, mean .5, missing .5.
    latents = torch.tensor([0.75, 1.0]).view(1, 1, 2, 1)
    fixed = torch.tensor([[-1, 0], [-1, -1]]).view(1, 2, 2, 1)
    assignment = quantizer.assign(latents, given=fixed)
    assert assignment.indices.flatten().tolist() == [-1, 0, 1, 1]
    assert assignment.commitment_loss.item() == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert quantizer.assign(latents, given=fixed, num_layers=1).commitment_loss.item() == 0


def test_gradients_pass_straight_through_to_the_latents():
    latents = on_the_lattice((1, 4, 4, 4), 13).requires_grad_()
    output = quantizer_of(GRIDS["tiny"], on_the_lattice((10, 4), 14)).quantize(latents)
    weights = on_the_lattice((1, 4, 4, 4), 15)
    (output.quantized * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_a_layers_target_moves_with_the_latent_as_many_times_as_the_cell_has_tokens():
    # z_l = (n + 1) z − Σ e: after n earlier tokens its slope in z is n + 1; residual quantization's is 1.
    for kind, slopes in (("saq", {1.0, 2.0}), ("residual", {1.0})):
        latents = on_the_lattice((1, 2, 4, 4), 16).requires_grad_()
        assignment = quantizer_of(GRIDS["tiny"], on_the_lattice((10, 2), 17), kind=kind).assign(latents)
        assignment.layer_targets[2].sum().backward()
        assert set(latents.grad.flatten().tolist()) == slopes


def test_a_trained_projection_is_searched_and_gets_the_gradient_of_the_codebook_loss():
    embeddings = torch.randn(30, 6, generator=torch.Generator().manual_seed(22))
    quantizer = StreamingAverageQuantizer(
        QuantizerConfig(trainable_projection=True),
        PyramidConfig(layer_grids=((1, 1), (2, 2))),
        codebook_of(embeddings),
        3,
    )
    table = quantizer.table()
    assert table.shape == (30, 3)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(30))
    stored = embeddings.half().float()
    by_hand = (stored - stored.mean(dim=0)) @ quantizer.projection.weight.T
    # It starts as PCA: uncorrelated coordinates of variance 1.
    torch.testing.assert_close(by_hand.T @ by_hand / 30, torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(table, torch.nn.functional.normalize(by_hand, dim=1))
    latents = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(23)).requires_grad_()
    assignment = quantizer.assign(latents)
    assert assignment.codebook_loss > 0
    # The codebook loss moves the entries alone, the commitment loss the latents alone.
    assignment.codebook_loss.backward(retain_graph=True)
    assert latents.grad is None
    assert quantizer.projection.weight.grad.abs().max() > 0
    quantizer.projection.weight.grad = None
    assignment.commitment_loss.backward()
    assert latents.grad.abs().max() > 0
    assert quantizer.projection.weight.grad is None
