"""Reads a GGUF of the Llama family: tokenizer, word embeddings, and the whole model as a transformers folder.

Source: the GGUF specification; llama.cpp's converter, whose interleaving of rotary halves is undone here.
Letters: V vocabulary size, C embedding size.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import BadDataError
from spae_core.errors import GGUF_READER_ERRORS

_CONTROL_TOKEN = 3

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def export_tokenizer_and_embeddings(folder: Path, source: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `embeddings.safetensors`.

    The embeddings are float32 (V, C) under the key `embeddings`, just what the quantised file stands for.

    Raises:
        BadDataError: If the file is damaged, or the written tokenizer does not give every token the id that the GGUF
            gives it.
    """
    from safetensors.numpy import save_file

    reader = _open(source)
    metadata = _metadata(reader, source)
    tokens = metadata["tokenizer.ggml.tokens"]
    tokenizer = _tokenizer(metadata)
    wrong = [index for index, token in enumerate(tokens) if tokenizer.token_to_id(token) != index]
    if wrong or tokenizer.get_vocab_size() != len(tokens):
        raise BadDataError(
            f"tokenizer: expected the {len(tokens)} ids of the GGUF, got {tokenizer.get_vocab_size()} with "
            f"{len(wrong)} elsewhere, the first {wrong[:3]}. Report it, with tokenizers' version."
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        f"{role}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
    }
    settings = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"])
    save_file({"embeddings": _values(reader, "token_embd.weight", source)}, folder / "embeddings.safetensors")


def export_llama_folder(folder: Path, source: Path) -> None:
    """Write the whole model in float32, for transformers' `AutoModelForCausalLM.from_pretrained(folder)`.

    Raises:
        BadDataError: If the file is damaged or of another architecture.
    """
    import numpy as np
    from safetensors.numpy import save_file

    reader = _open(source)
    metadata = _metadata(reader, source, only=r"(llama|general)\..*|.*_token_id")  # the lists of tokens take seconds
    ids = {key: metadata[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    num_heads = {
        "attn_q": metadata["llama.attention.head_count"],
        "attn_k": metadata["llama.attention.head_count_kv"],
    }
    tensors = {}
    for tensor in reader.tensors:
        values = _values(reader, tensor.name, source)
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if tensor.name not in _OUTER_NAMES and (block is None or block[2] not in _BLOCK_NAMES):
            raise BadDataError(
                f"{source}: expected tensors of a Llama, got '{tensor.name}'. Only that architecture is known here."
            )
        if block is None:
            tensors[_OUTER_NAMES[tensor.name]] = values
            continue
        layer, part = block.groups()
        if part in num_heads:
            # llama.cpp keeps rotary pairs side by side, transformers keeps the halves of a head apart.
            with _refusing_damage(source):
                halves = values.reshape(num_heads[part], -1, 2, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        tensors[f"model.layers.{layer}.{_BLOCK_NAMES[part]}.weight"] = values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": num_heads["attn_q"],
        "num_key_value_heads": num_heads["attn_k"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata["llama.rope.freq_base"],
        "vocab_size": metadata["llama.vocab_size"],
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "torch_dtype": "float32",
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["padding"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(source / name, folder / name)


def _open(source: Path) -> Any:  # noqa: ANN401  gguf has no types
    from gguf import GGUFReader

    files = sorted(source.glob("*.gguf"))
    if len(files) != 1:
        raise BadDataError(f"{source}: expected one .gguf file, got {len(files)}. Fetch the asset again.")
    with _refusing_damage(source):
        return GGUFReader(files[0])


@contextmanager
def _refusing_damage(source: Path) -> Iterator[None]:
    try:
        yield
    except GGUF_READER_ERRORS as error:
        raise BadDataError(f"{source}: expected a whole GGUF file, got: {error!r}. Fetch the asset again.") from error


class _Metadata(dict[str, Any]):
    """Fields by name; an absent one is the file's fault."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401  the type of a dict's values
        raise BadDataError(f"GGUF: expected a field {name}, got none. Fetch the asset again.")


def _metadata(reader: Any, source: Path, only: str = ".*") -> _Metadata:  # noqa: ANN401  gguf has no types
    with _refusing_damage(source):
        return _Metadata({name: f.contents() for name, f in reader.fields.items() if re.fullmatch(only, name)})


def _values(reader: Any, name: str, source: Path) -> Any:  # noqa: ANN401  gguf has no types; float32 numpy array
    """The values of a tensor, float32, rows first as torch has them."""
    import numpy as np
    from gguf import dequantize

    tensor = next((tensor for tensor in reader.tensors if tensor.name == name), None)
    if tensor is None:
        raise BadDataError(f"{source}: expected a tensor {name}, got none. Fetch the asset again.")
    with _refusing_damage(source):
        return np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)


def _tokenizer(metadata: dict[str, Any]) -> Any:  # noqa: ANN401  tokenizers.Tokenizer; imported lazily
    """Byte-level BPE as the GGUF describes it.

    llama.cpp's pre-tokenizer `smollm` cuts off every digit by itself before the byte-level rule; the GGUF
    loader of transformers leaves that out and then gives "a  1" other ids.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise BadDataError(
            f"tokenizer of the GGUF: expected ('gpt2', 'smollm'), got {kind}. Only that kind is known here."
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind_id in zip(tokens, types, strict=True) if kind_id == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
