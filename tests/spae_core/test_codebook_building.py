"""Lookup spaces against their defining properties, and embeddings read back from files written here."""

import warnings

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spae_core.codebook_building import (
    normalize_rows,
    pca_lookup,
    read_llm_embeddings,
    text_lookup,
    whitened_principal_axes,
)
from spae_core.errors import ModelError


def anisotropic(rows: int = 200, columns: int = 6, seed: int = 0) -> Tensor:
    """Rows far from the origin with axes of very different variance, mixed by a rotation."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    scales = 2.0 ** -torch.arange(columns)
    return torch.randn(rows, columns, generator=generator) * scales @ rotation + 5


def test_whitened_axes_have_mean_0_variance_1_and_are_uncorrelated():
    axes = whitened_principal_axes(anisotropic(), 4).double()
    assert axes.shape == (200, 4)
    torch.testing.assert_close(axes.mean(dim=0), torch.zeros(4).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(axes.T @ axes / 200, torch.eye(4).double(), atol=1e-5, rtol=0)


def test_whitened_axes_are_those_of_numpys_svd_largest_first():
    vectors = anisotropic()
    left, sizes, _ = np.linalg.svd(vectors.double().numpy() - vectors.double().numpy().mean(axis=0))
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]
    ours = whitened_principal_axes(vectors, 3).numpy()
    for axis in range(3):
        reference = left[:, axis] * np.sqrt(200)
        assert min(np.abs(ours[:, axis] - reference).max(), np.abs(ours[:, axis] + reference).max()) < 1e-4


def test_the_sign_of_an_axis_is_fixed_by_its_largest_entry():
    vectors = anisotropic(seed=1)
    axes = whitened_principal_axes(vectors, 6)
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    assert (largest > 0).all()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(whitened_principal_axes(vectors[order], 6), axes[order], atol=1e-4, rtol=0)
    torch.testing.assert_close(whitened_principal_axes(10 * vectors - 3, 6), axes, atol=1e-4, rtol=0)


def test_more_axes_than_there_are_cannot_be_had():
    with pytest.raises(ModelError, match=r"at most 6 dimensions for vectors \(200, 6\), got 7"):
        whitened_principal_axes(anisotropic(), 7)
    with pytest.raises(ModelError, match=r"at most 3 dimensions for vectors \(3, 6\), got 4"):
        pca_lookup(anisotropic(rows=3), 4)


def test_the_pca_lookup_is_the_whitened_axes_on_the_unit_sphere():
    lookup, axes = pca_lookup(anisotropic(), 4), whitened_principal_axes(anisotropic(), 4)
    torch.testing.assert_close(lookup.norm(dim=1), torch.ones(200))
    torch.testing.assert_close(lookup * axes.norm(dim=1, keepdim=True), axes)


def planted(noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """LLM rows, and text vectors that are a linear map of them plus noise."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(400, 10, generator=generator) + 2
    mapped = rows @ torch.randn(10, 5, generator=generator) - 7
    return rows, mapped + noise * torch.randn(400, 5, generator=generator)


def test_the_text_lookup_recovers_a_planted_linear_map():
    rows, text = planted()
    lookup, r_squared = text_lookup(rows, text, 3, ridge=1e-9)
    assert r_squared == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(lookup, pca_lookup(text, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(lookup.norm(dim=1), torch.ones(400))


def test_r_squared_falls_with_noise_and_is_near_0_for_unrelated_text():
    scores = [text_lookup(*planted(noise), 3)[1] for noise in (0.0, 2.0, 8.0)]
    assert 1 > scores[0] > scores[1] > scores[2] > 0
    rows, _ = planted()
    unrelated = torch.randn(400, 5, generator=torch.Generator().manual_seed(4))
    assert text_lookup(rows, unrelated, 3)[1] < 0.1


def test_r_squared_is_the_explained_share_of_ridge_regression_by_hand():
    rows, text = planted(2.0)
    inputs = (rows - rows.mean(dim=0)).double().numpy()
    targets = whitened_principal_axes(text, 3).double().numpy()
    penalty = 0.1 * np.mean(np.var(inputs, axis=0)) * len(inputs)
    weights = np.linalg.inv(inputs.T @ inputs + penalty * np.eye(10)) @ inputs.T @ targets
    missed = ((targets - inputs @ weights) ** 2).sum() / (targets**2).sum()
    lookup, r_squared = text_lookup(rows, text, 3)
    assert r_squared == pytest.approx(1 - missed, abs=1e-6)
    predicted = inputs @ weights
    expected = predicted / np.linalg.norm(predicted, axis=1, keepdims=True)
    np.testing.assert_allclose(lookup.numpy(), expected, atol=1e-5)


def test_rows_are_normalised_as_named():
    rows = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [3.0, -1.0]])
    assert torch.equal(normalize_rows(rows, "none"), rows)
    scaled = normalize_rows(rows, "unit_mean_norm")
    torch.testing.assert_close(scaled * (5 + 1 + 10 + 10**0.5) / 4, rows)
    # The mean is (3, 3): (0, 1), (-3, -2), (3, 5), (0, -4) remain, and go to norm 1.
    sphere = normalize_rows(rows, "unit_sphere")
    expected = torch.tensor([[0, 1], [-3 / 13**0.5, -2 / 13**0.5], [3 / 34**0.5, 5 / 34**0.5], [0, -1]])
    torch.testing.assert_close(sphere, expected)


ROWS = torch.arange(96.0).view(3, 32) / 8


@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "transformer.wte.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_are_found_in_any_shard_of_safetensors(tmp_path, key, dtype):
    save_file({"lm_head.weight": torch.zeros(3, 32)}, tmp_path / "model-00001.safetensors")
    save_file({key: ROWS.to(dtype)}, tmp_path / "model-00002.safetensors")
    rows = read_llm_embeddings(tmp_path)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, ROWS.to(dtype).float())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 0.0), (np.float16, 0.0), (None, 0.05)], ids=["f32", "f16", "q8"]
)
def test_embeddings_are_found_in_a_gguf_file(tmp_path, dtype, tolerance):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    if dtype is None:
        packed = gguf.quantize(ROWS.numpy(), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else:
        writer.add_tensor("token_embd.weight", ROWS.numpy().astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns once of memory that cannot be written
        rows = read_llm_embeddings(str(tmp_path))
    assert rows.dtype == torch.float32
    rows += 0
    torch.testing.assert_close(rows, ROWS, atol=tolerance, rtol=0)


def test_a_folder_without_embeddings_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        read_llm_embeddings(tmp_path)
    with pytest.raises(ModelError, match="absent"):
        read_llm_embeddings(tmp_path / "absent")
    save_file({"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.embed_tokens\.weight"):
        read_llm_embeddings(tmp_path)


def test_a_gguf_file_without_the_tensor_is_refused_by_name(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("other.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"model\.gguf: expected a tensor token_embd\.weight, got none"):
        read_llm_embeddings(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a model, but long enough for a header" * 8)
    with pytest.raises(ModelError, match=name):
        read_llm_embeddings(tmp_path)


def test_a_gguf_file_cut_anywhere_is_refused_by_name(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("token_embd.weight", ROWS.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = (tmp_path / "model.gguf").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "model.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"model\.gguf: expected a whole GGUF file"):
            read_llm_embeddings(tmp_path)
