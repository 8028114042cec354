import pyarrow as pa
import pytest

from schemas.tokens import TokensMetadata, num_token_layers, tokens_schema
from schemas.versions import SchemaError

METADATA = TokensMetadata(
    model="tiny",
    model_sha256="a" * 64,
    codebook_sha256="b" * 64,
    codebook_size=64,
    layer_grids=((1, 1), (2, 2)),
    preprocessing="centre crop",
    decoder="pillow 12.0",
    plan_sha256="c" * 64,
    shard=4,
    num_shards=9,
    num_planned=10,
    num_ok=7,
    num_quarantined=3,
)


def test_the_footer_reads_back_as_it_was():
    assert TokensMetadata.from_footer(METADATA.to_footer(), where="here") == METADATA


def test_every_value_of_the_footer_can_be_read_as_text():
    footer = METADATA.to_footer()
    assert footer[b"spae.schema"] == b"tokens/1"
    assert footer[b"spae.layer_grids"] == b"[[1, 1], [2, 2]]"
    assert footer[b"spae.num_ok"] == b"7"


def test_a_file_of_another_schema_is_refused_with_both_names():
    footer = {**METADATA.to_footer(), b"spae.schema": b"tokens/2"}
    with pytest.raises(SchemaError, match=r"here: expected tokens/1, got tokens/2"):
        TokensMetadata.from_footer(footer, where="here")


@pytest.mark.parametrize("footer", [None, {}, {b"pandas": b"{}"}])
def test_a_file_without_our_footer_is_refused(footer):
    with pytest.raises(SchemaError, match="got none"):
        TokensMetadata.from_footer(footer, where="here")


def test_a_missing_key_is_named():
    footer = METADATA.to_footer()
    del footer[b"spae.plan_sha256"]
    with pytest.raises(SchemaError, match=r"spae\.plan_sha256"):
        TokensMetadata.from_footer(footer, where="here")


def test_the_schema_has_one_list_column_a_layer_after_the_users_own():
    schema = tokens_schema(2, kept_fields=[pa.field("label", pa.string())])
    assert schema.names == [
        *("sample_id", "uri", "content_sha256", "width_px", "height_px", "label", "tokens_0", "tokens_1")
    ]
    assert pa.types.is_list(schema.field("tokens_1").type)
    assert schema.field("tokens_1").type.value_type == pa.int32()
    assert num_token_layers(schema) == 2


def test_a_kept_column_with_a_name_of_ours_is_refused():
    with pytest.raises(SchemaError, match="'tokens_0'"):
        tokens_schema(2, kept_fields=[pa.field("tokens_0", pa.string())])
