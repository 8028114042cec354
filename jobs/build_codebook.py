"""`spae codebook --llm DIR|NAME --out DIR`: a lexical codebook from an LLM's own words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.console import note, say

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BuildCodebook:
    """Make a codebook: words of an LLM, each with the vector that pictures are compared with.

    The defaults make the codebook of spae-smol-128 (after `spae assets fetch smollm2 minilm`). The paper's choice is
    --vectors llm --lookup none --most-frequent 65000 --no-whole-words.
    """

    llm: str = "smollm2"
    """Folder with tokenizer.json and weights (safetensors or GGUF), or the name of an asset."""

    out: Path
    """Folder for codebook.safetensors."""

    vectors: Literal["llm", "text", "clip"] = "llm"
    """Where vectors come from: the LLM's input embeddings, a text encoder's vector of each word, or open_clip's."""

    lookup: Literal["none", "pca", "text"] = "text"
    """Space to search in: the vectors as they are; their whitened principal axes; or those axes of a text encoder that
    the vectors predict best, so that neighbours mean alike."""

    embedding_dim: int | None = None
    """Dimensions of the lookup space. Default: 32, or the vectors' own width for --lookup none."""

    normalization: Literal["none", "unit_mean_norm", "unit_sphere"] = "unit_sphere"
    """Scale of the vectors for --lookup none; the other spaces are on the unit sphere."""

    whole_words: bool = True
    """Only lower-case words of 2 letters or more that people use (wordfreq Zipf of --min-zipf or more)."""

    space_led: bool = False
    """Only tokens that begin a word. Whole words always do."""

    min_zipf: float = 3.0
    """Least Zipf frequency of whole words: 3 is once in a million words."""

    most_frequent: int = 16_384
    """Keep this many; 0 keeps all."""

    text_encoder: str = "minilm"
    """Folder or asset of the text encoder, for --vectors text and --lookup text."""

    clip_model: str = "ViT-L-14"
    """open_clip architecture, for --vectors clip."""

    clip_pretrained: str = "openai"
    """open_clip weights: a tag it knows, or a checkpoint file."""

    device: str = "cpu"
    """Where the encoders run."""

    def run(self) -> int:
        """Read, filter, place, write.

        Raises:
            ModelError: If the LLM cannot be read or the filter leaves too few tokens.
        """
        from jobs.named_folders import folder_or_asset
        from spae_core.lexical_codebook import LexicalCodebook
        from spae_core.vocabulary import TokenFilter, filter_tokens, read_vocabulary

        folder = folder_or_asset(self.llm)
        rule = TokenFilter(
            space_led=self.space_led,
            whole_words=self.whole_words,
            min_zipf=self.min_zipf,
            most_frequent=self.most_frequent,
        )
        vocabulary = read_vocabulary(folder / "tokenizer.json")
        pairs = filter_tokens(vocabulary, rule)
        note(f"{len(pairs)} of {len(vocabulary)} tokens of {folder.name} pass the filter")
        token_ids, words = [token_id for token_id, _ in pairs], [word for _, word in pairs]
        embeddings, fit = self._place(self._vectors(folder, token_ids, words), words)
        codebook = LexicalCodebook(
            embeddings=embeddings,
            token_ids=tuple(token_ids),
            words=tuple(words),
            source=f"{_llm_name(folder)}, {self._space()}",
            settings={
                "vectors": self.vectors,
                "lookup": self.lookup,
                "normalization": self.normalization if self.lookup == "none" else "unit_sphere",
                "whole_words": self.whole_words,
                "min_zipf": self.min_zipf,
                "r_squared": round(fit, 4),
            },
        )
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "codebook.safetensors"
        codebook.save(path)
        if self.lookup == "text":
            note(f"the words' vectors explain {fit:.0%} of the text axes' variance (R²)")
        say(f"{codebook.codebook_size} words × {codebook.embedding_dim}, sha256 {codebook.sha256}: {path}")
        return 0

    def _space(self) -> str:
        origin = {
            "llm": "input embeddings",
            "text": "text vectors",
            "clip": f"{self.clip_model} text vectors",
        }
        return (
            origin[self.vectors] if self.lookup == "none" else f"{origin[self.vectors]} in {self.lookup} lookup space"
        )

    def _vectors(self, folder: Path, token_ids: list[int], words: list[str]) -> Tensor:
        from spae_core.codebook_building import read_llm_embeddings

        if self.vectors == "llm":
            return read_llm_embeddings(folder)[token_ids]
        if self.vectors == "text":
            return self._text_vectors(words)
        from spae_core.semantic_encoder import OpenClipSemanticEncoder

        note(f"encoding {len(words)} words in 80 sentences each with {self.clip_model}; this takes long on a CPU")
        clip = OpenClipSemanticEncoder.create(self.clip_model, self.clip_pretrained, device=self.device)
        return clip.encode_words(words).cpu()

    def _text_vectors(self, words: list[str]) -> Tensor:
        from jobs.named_folders import folder_or_asset
        from spae_core.text_encoder import MiniLmTextEncoder

        note(f"encoding {len(words)} words with {self.text_encoder}")
        encoder = MiniLmTextEncoder.from_folder(folder_or_asset(self.text_encoder), device=self.device)
        return encoder.encode_texts(words).cpu()

    def _place(self, vectors: Tensor, words: list[str]) -> tuple[Tensor, float]:
        """Lookup vectors, and the share of the text axes' variance they explain (1 where there is nothing to fit)."""
        from spae_core.codebook_building import normalize_rows, pca_lookup, text_lookup

        if self.lookup == "none":
            return normalize_rows(vectors, self.normalization), 1.0
        width = self.embedding_dim or 32
        if self.lookup == "pca":
            return pca_lookup(vectors, width), 1.0
        return text_lookup(vectors, self._text_vectors(words), width)


def _llm_name(folder: Path) -> str:
    """The LLM's name for people: that of its GGUF file, else of its folder."""
    ggufs = sorted(folder.glob("*.gguf"))
    return ggufs[0].stem if ggufs else folder.name
