import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from schemas.plan import sample_id_of, shard_of


def test_the_id_is_what_any_sha256_tool_gives():
    assert sample_id_of("/photos/é.jpg") == hashlib.sha256("/photos/é.jpg".encode()).hexdigest()[:32]


def test_the_shard_follows_from_the_id_alone():
    assert shard_of("000000000000000a" + "f" * 16, 7) == 10 % 7


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 10_000))
def test_every_uri_has_one_shard_in_range(uri, num_shards):
    sample_id = sample_id_of(uri)
    assert len(sample_id) == 32
    assert 0 <= shard_of(sample_id, num_shards) < num_shards


def test_shards_get_about_equally_many_inputs():
    counts = Counter(shard_of(sample_id_of(f"/photos/{number}.jpg"), 8) for number in range(8000))
    assert min(counts.values()) > 800
    assert max(counts.values()) < 1200
