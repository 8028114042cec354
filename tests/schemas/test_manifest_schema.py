import json
from dataclasses import replace

import pytest

from schemas.manifest import Manifest, PartEntry, StageTiming
from schemas.versions import SchemaError

PART = PartEntry(
    shard=0,
    path="data/part-00000.parquet",
    sha256="a" * 64,
    size_bytes=1000,
    num_rows=8,
    num_quarantined=2,
    quarantine_sha256="b" * 64,
)
MANIFEST = Manifest(
    num_planned=10,
    num_ok=8,
    num_quarantined=2,
    quarantined_by_reason={"decode_images/EmptyFile": 2},
    parts=(PART,),
    bytes_per_image=125.0,
    plan_sha256="c" * 64,
    model_sha256="d" * 64,
    codebook_sha256="e" * 64,
    codebook_table_sha256="f" * 64,
    num_processed=10,
    wall_seconds=2.0,
    images_per_second=5.0,
    stages={"tokenize_images": StageTiming(busy_seconds=1.5, wait_seconds=0.5, num_workers=1)},
    bottleneck="tokenize_images",
)


def test_a_manifest_reads_back_as_it_was():
    assert Manifest.from_json(MANIFEST.to_json(), where="here") == MANIFEST


def test_the_json_names_its_schema_first():
    assert next(iter(json.loads(MANIFEST.to_json()).items())) == ("schema", "manifest/1")


def test_counts_that_do_not_add_up_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"= 10 planned, got 7 \+ 2 \+ 0 = 9"):
        replace(MANIFEST, num_ok=7)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"schema": "manifest/1"}', '{"schema": "tokens/1"}'])
def test_anything_else_is_refused_with_its_place(text):
    with pytest.raises(SchemaError, match=r"/run/manifest\.json"):
        Manifest.from_json(text, where="/run/manifest.json")
