"""Entries that may move: they do, towards the latents, and the saved model has them where they ended."""

import torch
from training_runs import plain_recipe, smooth_crops

from spae_core.presets import preset
from spae_core.tokenizer import SpaeTokenizer
from spae_core.trainer import Trainer
from spae_core.training_batches import TrainingData


def test_entries_move_towards_the_latents_that_chose_them(tiny_codebook):
    quantizer = SpaeTokenizer(preset("tiny"), tiny_codebook).quantizer
    before = quantizer.entries.clone()
    assert not quantizer.table_is_trained
    quantizer.train_entries()
    assert quantizer.table_is_trained
    latents = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    first = quantizer.assign(latents)
    first.codebook_loss.backward()
    chosen = set(first.indices[first.indices >= 0].tolist())
    moved = set(quantizer.entries.grad.abs().sum(dim=1).nonzero().flatten().tolist())
    assert moved == chosen
    with torch.no_grad():
        quantizer.entries -= 0.05 * quantizer.entries.grad
    assert quantizer.assign(latents).codebook_loss < first.codebook_loss
    assert not torch.equal(quantizer.entries, before)


def test_a_model_with_trained_entries_resumes_and_is_saved_as_it_ended(tiny_codebook, tmp_path):
    def trainer() -> Trainer:
        torch.manual_seed(0)
        model = SpaeTokenizer(preset("tiny"), tiny_codebook)
        model.quantizer.train_entries()
        return Trainer(model, plain_recipe(num_steps=3), TrainingData(crops=smooth_crops()), tmp_path / "run")

    first = trainer()
    list(first.steps())
    ended = first.model.quantizer.entries.detach()
    assert (ended - tiny_codebook.embeddings).abs().max() > 1e-3
    resumed = trainer()
    assert resumed.step == 3
    assert torch.equal(resumed.model.quantizer.entries, ended)
    resumed.averaged.save_pretrained(tmp_path / "model")
    loaded = SpaeTokenizer.from_pretrained(tmp_path / "model")
    assert not loaded.quantizer.table_is_trained
    torch.testing.assert_close(loaded.quantizer.table(), resumed.averaged.quantizer.table().detach(), atol=1e-3, rtol=0)
    assert loaded.codebook.words == tiny_codebook.words
