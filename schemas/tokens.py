"""The token dataset, `tokens/1`: one row a picture, one `list<int32>` column a pyramid layer.

Columns: `sample_id`, `uri`, `content_sha256`, `width_px`, `height_px` (of the source picture, upright), the
user's own columns, then `tokens_0` … `tokens_{N-1}`: **code_index**, the position in the codebook, in raster
order. The LLM's `token_id` and the text come from the codebook table, joined by code_index.

One column a layer costs 8 % more than one flat list and makes reads of the coarse layers 10 times cheaper.
Legend: L layers of the model, N <= L layers written, V entries of the codebook.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from schemas.versions import SCHEMA_KEY, TOKENS, SchemaError, check_schema

#: Prefix of every footer key of ours; the values are UTF-8, structured ones JSON with sorted keys.
_PREFIX = "spae."

SAMPLE_FIELDS = (
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("content_sha256", pa.string(), nullable=False),
    pa.field("width_px", pa.int32(), nullable=False),
    pa.field("height_px", pa.int32(), nullable=False),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensMetadata:
    """What the footer of every token file says about its tokens.

    Attributes:
        model: Name of the model, or the folder it was loaded from.
        model_sha256: Hash of its weights.
        codebook_sha256: Hash of its codebook; only this codebook may decode the file.
        codebook_size: V; every code_index is in [0, V).
        layer_grids: (height, width) in cells of each layer written, coarse to fine.
        preprocessing: How bytes became the model's input: size, crop, resampling, colour.
        decoder: Library that decoded the pictures, with version, e.g. `pillow 12.0`.
        plan_sha256: Hash of the plan the file belongs to.
        shard: Shard of the plan that this file is.
        num_shards: Shards of the plan.
        num_planned: Rows the plan gives this shard; equals num_ok + num_quarantined.
        num_ok: Rows in this file.
        num_quarantined: Rows it lacks: in the quarantine file of the same name, or in a later part of the shard.
        round: The retry or extension that wrote the file; 0, and not in the footer, for the run itself.
    """

    model: str
    model_sha256: str
    codebook_sha256: str
    codebook_size: int
    layer_grids: tuple[tuple[int, int], ...]
    preprocessing: str
    decoder: str
    plan_sha256: str
    shard: int
    num_shards: int
    num_planned: int
    num_ok: int
    num_quarantined: int
    round: int = 0

    def to_footer(self) -> dict[bytes, bytes]:
        """Key-value metadata for the Parquet footer; equal metadata give equal bytes."""
        footer = {SCHEMA_KEY: TOKENS.encode()}
        for name, value in asdict(self).items():
            if name == "round" and value == 0:
                continue
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            footer[f"{_PREFIX}{name}".encode()] = text.encode()
        return footer

    @classmethod
    def from_footer(cls, footer: Mapping[bytes, bytes] | None, *, where: str) -> "TokensMetadata":
        """Read the metadata back.

        Args:
            footer: Key-value metadata of the Parquet footer, or None if it has none.
            where: Path or url of the file, for messages.

        Raises:
            SchemaError: If the file is not `tokens/1`, or one of the keys is lacking or damaged.
        """
        found = {key: value.decode(errors="replace") for key, value in (footer or {}).items()}
        check_schema(found.get(SCHEMA_KEY), TOKENS, where=where)

        def text(name: str) -> str:
            value = found.get(f"{_PREFIX}{name}".encode())
            if value is None:
                raise SchemaError(
                    f"footer of {where}: expected the key {_PREFIX}{name}, got none. Tokenize into a new folder."
                )
            return value

        try:
            return cls(
                model=text("model"),
                model_sha256=text("model_sha256"),
                codebook_sha256=text("codebook_sha256"),
                codebook_size=int(text("codebook_size")),
                layer_grids=tuple((int(h), int(w)) for h, w in json.loads(text("layer_grids"))),
                preprocessing=text("preprocessing"),
                decoder=text("decoder"),
                plan_sha256=text("plan_sha256"),
                shard=int(text("shard")),
                num_shards=int(text("num_shards")),
                num_planned=int(text("num_planned")),
                num_ok=int(text("num_ok")),
                num_quarantined=int(text("num_quarantined")),
                round=int(found.get(f"{_PREFIX}round".encode(), "0")),
            )
        except SchemaError:
            raise
        except (ValueError, TypeError) as error:
            raise SchemaError(
                f"footer of {where}: expected the keys of {TOKENS}, got something else ({error}). "
                "The file is damaged: copy it again, or delete it and repeat the command that wrote it."
            ) from error


def token_column(layer: int) -> str:
    """Name of the column of one layer, counted from 0: `tokens_0` is the coarsest."""
    return f"tokens_{layer}"


def token_fields(num_layers: int) -> tuple[pa.Field, ...]:
    """One `list<int32>` field a layer, coarse to fine; neither the lists nor their elements are null."""
    element = pa.field("element", pa.int32(), nullable=False)
    return tuple(pa.field(token_column(layer), pa.list_(element), nullable=False) for layer in range(num_layers))


def tokens_schema(num_layers: int, *, kept_fields: Sequence[pa.Field] = ()) -> pa.Schema:
    """The schema of one token file, without footer metadata.

    Args:
        num_layers: Layers written, N >= 1.
        kept_fields: The user's own columns, placed before the tokens.

    Raises:
        SchemaError: If a kept column has the name of one of ours.
    """
    own = (*SAMPLE_FIELDS, *token_fields(num_layers))
    taken = {field.name for field in own}
    for field in kept_fields:
        if field.name in taken:
            raise SchemaError(
                f"kept column {field.name!r}: expected a name the token dataset does not use, "
                "got one of its own. Rename the column in the input."
            )
    return pa.schema((*SAMPLE_FIELDS, *kept_fields, *token_fields(num_layers)))


def num_token_layers(schema: pa.Schema) -> int:
    """Layers that a token file has: the number of consecutive columns `tokens_0`, `tokens_1`, …."""
    layer = 0
    while schema.get_field_index(token_column(layer)) >= 0:
        layer += 1
    return layer
