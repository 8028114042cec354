"""A GGUF of the Llama family becomes a tokenizer, embeddings and a folder with the same numbers."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from public_assets import fetched
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from jobs.asset_gguf import export_llama_folder, export_tokenizer_and_embeddings
from pipelines.errors import BadDataError

HIDDEN, HEADS, KV_HEADS, LAYERS, INNER = 32, 4, 2, 2, 64
# Two control tokens, two letters, digits, the byte-level space and newline, and what merges make of them.
TOKENS = ["<|endoftext|>", "<|im_end|>", "a", "b", *"0123456789", "Ġ", "Ċ", "ĠĠ", "Ġa", "ab"]
MERGES = ["Ġ Ġ", "Ġ a", "a b"]
PARTS = {
    "self_attn.q_proj": ("attn_q", (HIDDEN, HIDDEN)),
    "self_attn.k_proj": ("attn_k", (HIDDEN // HEADS * KV_HEADS, HIDDEN)),
    "self_attn.v_proj": ("attn_v", (HIDDEN // HEADS * KV_HEADS, HIDDEN)),
    "self_attn.o_proj": ("attn_output", (HIDDEN, HIDDEN)),
    "mlp.gate_proj": ("ffn_gate", (INNER, HIDDEN)),
    "mlp.up_proj": ("ffn_up", (INNER, HIDDEN)),
    "mlp.down_proj": ("ffn_down", (HIDDEN, INNER)),
    "input_layernorm": ("attn_norm", (HIDDEN,)),
    "post_attention_layernorm": ("ffn_norm", (HIDDEN,)),
}


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    """Weights of a small Llama by the names that transformers gives them."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) / 4

    weights = {"model.embed_tokens.weight": draw(len(TOKENS), HIDDEN), "model.norm.weight": draw(HIDDEN)}
    for layer in range(LAYERS):
        for part, (_, shape) in PARTS.items():
            weights[f"model.layers.{layer}.{part}.weight"] = draw(*shape)
    return weights


def llama_cpp_order(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """How llama.cpp's converter stores q and k: the halves of each head interleaved."""
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def write_gguf(path: Path, state: dict[str, np.ndarray], *, pre: str = "smollm", tokens: list[str] = TOKENS) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(tokens) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    num_heads = {"attn_q": HEADS, "attn_k": KV_HEADS}
    for layer in range(LAYERS):
        for part, (name, _) in PARTS.items():
            weight = state[f"model.layers.{layer}.{part}.weight"]
            if name in num_heads:
                weight = llama_cpp_order(weight, num_heads[name])
            writer.add_tensor(f"blk.{layer}.{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def exported(tmp_path: Path, state: dict[str, np.ndarray]) -> Path:
    """Folder of a whole exported model."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    write_gguf(source / "m.gguf", state)
    export_tokenizer_and_embeddings(source, source)
    export_llama_folder(folder, source)
    return folder


def test_every_weight_comes_back_where_transformers_has_it(exported: Path, state: dict[str, np.ndarray]) -> None:
    tensors = load_file(exported / "model.safetensors")
    assert tensors.keys() == state.keys()
    for name, weight in state.items():
        np.testing.assert_array_equal(tensors[name], weight, err_msg=name)


@pytest.mark.slow
def test_the_exported_folder_gives_the_logits_of_the_original(exported: Path, state: dict[str, np.ndarray]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        vocab_size=len(TOKENS),
        rope_theta=100_000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    original = LlamaForCausalLM(config).eval()
    original.load_state_dict({key: torch.tensor(value) for key, value in state.items()}, strict=False)
    again = AutoModelForCausalLM.from_pretrained(exported, local_files_only=True)
    tokens = torch.tensor([[2, 16, 3, 17, 5, 18]])
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, original(tokens).logits, rtol=0, atol=1e-5)
    assert again.config.eos_token_id == 1
    tokenizer = AutoTokenizer.from_pretrained(exported, local_files_only=True)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.model_max_length == 64


def test_the_exported_tokenizer_cuts_digits_off_and_knows_control_tokens(exported: Path) -> None:
    tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
    # Two spaces before a digit stay together; before a letter the second one belongs to the word.
    cases = {"a  1": "a ĠĠ 1", "a  a": "a Ġ Ġa", "12": "1 2", "ab<|im_end|>\n": "ab <|im_end|> Ċ"}
    for text, expected in cases.items():
        ids = tokenizer.encode(text).ids
        assert ids == [TOKENS.index(token) for token in expected.split(" ")], text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    settings = json.loads((exported / "tokenizer_config.json").read_text())
    assert (settings["eos_token"], settings["bos_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_the_exported_embeddings_are_the_rows_of_the_model(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    write_gguf(tmp_path / "m.gguf", state)
    export_tokenizer_and_embeddings(tmp_path, tmp_path)
    rows = load_file(tmp_path / "embeddings.safetensors")["embeddings"]
    np.testing.assert_array_equal(rows, state["model.embed_tokens.weight"])


def test_a_vocabulary_whose_ids_would_move_is_refused(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    twice = ["8" if token == "9" else token for token in TOKENS]
    write_gguf(tmp_path / "m.gguf", state, tokens=twice)
    with pytest.raises(BadDataError, match=r"expected the 19 ids of the GGUF, got 18 with 1 elsewhere"):
        export_tokenizer_and_embeddings(tmp_path, tmp_path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    write_gguf(tmp_path / "m.gguf", state, pre="llama-bpe")
    with pytest.raises(BadDataError, match=r"got \('gpt2', 'llama-bpe'\)"):
        export_tokenizer_and_embeddings(tmp_path, tmp_path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, state: dict[str, np.ndarray]) -> None:
    write_gguf(tmp_path / "model.gguf", state)
    whole = (tmp_path / "model.gguf").read_bytes()
    for length in (0, 3, 20, 200, 1000, len(whole) // 2, len(whole) - 200):
        (tmp_path / "model.gguf").write_bytes(whole[:length])
        for export in (export_tokenizer_and_embeddings, export_llama_folder):
            with pytest.raises(BadDataError, match="expected a whole GGUF file"):
                export(tmp_path, tmp_path)


def test_absent_fields_and_tensors_of_other_architectures_are_named(
    tmp_path: Path, state: dict[str, np.ndarray]
) -> None:
    write_gguf(tmp_path / "model.gguf", state)
    whole = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(whole.replace(b"llama.context_length", b"llama.context_lengtj"))
    with pytest.raises(BadDataError, match=r"expected a field llama\.context_length, got none"):
        export_llama_folder(tmp_path, tmp_path)
    (tmp_path / "model.gguf").write_bytes(whole.replace(b"blk.1.ffn_up", b"blk.1.ffn_xx"))
    with pytest.raises(BadDataError, match=r"expected tensors of a Llama, got 'blk\.1\.ffn_xx\.weight'"):
        export_llama_folder(tmp_path, tmp_path)
    (tmp_path / "model.gguf").write_bytes(whole.replace(b"token_embd", b"token_xxxx"))
    with pytest.raises(BadDataError, match=r"expected a tensor token_embd\.weight, got none"):
        export_tokenizer_and_embeddings(tmp_path, tmp_path)


def test_a_folder_without_a_gguf_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"expected one \.gguf file, got 0"):
        export_tokenizer_and_embeddings(tmp_path, tmp_path)


@pytest.mark.assets
def test_smollm2_has_its_vocabulary_and_cuts_digits_off() -> None:
    tokenizer = Tokenizer.from_file(str(fetched("smollm2") / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 49_152
    assert tokenizer.encode(" cat").ids == [2644]
    assert tokenizer.encode("a  1 x\n\n 22").ids == [81, 256, 33, 1792, 8866, 34, 34]
    text = "Naïve 日本\t<|im_start|>user\nhi<|im_end|> 4567"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
