"""The search against brute force in float64, where float32 rounding would choose wrongly, and in bounded memory."""

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spae_core.nearest_entry import SCORES_PER_CHUNK, nearest_entry


def brute_force(vectors: Tensor, entries: Tensor) -> list[int]:
    """One pair at a time in float64; the first of equal distances wins."""
    found = []
    for vector in vectors.double():
        best, best_distance = -1, float("inf")
        for index, entry in enumerate(entries.double()):
            distance = float(((vector - entry) ** 2).sum())
            if distance < best_distance:
                best, best_distance = index, distance
        found.append(best)
    return found


def random_rows(rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_random_vectors_find_the_entry_that_brute_force_finds(dtype):
    vectors, entries = random_rows(40, 6, 0, dtype), random_rows(30, 6, 1)
    found = nearest_entry(vectors, entries)
    assert found.dtype == torch.int64
    assert found.tolist() == brute_force(vectors.float(), entries)
    assert len(set(found.tolist())) > 10


def test_the_entry_is_that_of_cdist_in_float64_at_the_real_size():
    vectors, entries = random_rows(600, 32, 2), random_rows(16_384, 32, 3)
    expected = torch.cdist(vectors.double(), entries.double()).argmin(dim=1)
    assert torch.equal(nearest_entry(vectors, entries), expected)


def test_exact_ties_go_to_the_lowest_index():
    # On a lattice of small integers every distance is exact, and most rows have several nearest entries.
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randint(-2, 3, (200, 3), generator=generator).float()
    entries = torch.randint(-2, 3, (50, 3), generator=generator).float() * 2
    distances = torch.cdist(vectors.double(), entries.double(), compute_mode="donot_use_mm_for_euclid_dist")
    num_tied = ((distances == distances.amin(dim=1, keepdim=True)).sum(dim=1) > 1).sum()
    assert num_tied > 100
    assert nearest_entry(vectors, entries).tolist() == brute_force(vectors, entries)


def test_duplicate_entries_are_never_found_but_for_the_first():
    entries = random_rows(20, 5, 5).repeat(3, 1)
    vectors = random_rows(300, 5, 6)
    found = nearest_entry(vectors, entries)
    assert found.max() < 20
    assert found.tolist() == brute_force(vectors, entries[:20])


def far_from_the_origin() -> tuple[Tensor, Tensor]:
    """Entries so far out that a float32 score (about 160,000) cannot hold the differences between distances."""
    return 100 + 0.02 * random_rows(60, 16, 7), 100 + 0.02 * random_rows(40, 16, 8)


def test_near_ties_below_the_resolution_of_float32_are_decided_rightly():
    vectors, entries = far_from_the_origin()
    assert nearest_entry(vectors, entries).tolist() == brute_force(vectors, entries)


def test_without_the_second_search_near_ties_may_be_decided_wrongly():
    vectors, entries = far_from_the_origin()
    assert nearest_entry(vectors, entries, exact=False).tolist() != brute_force(vectors, entries)
    vectors, entries = random_rows(40, 6, 0), random_rows(30, 6, 1)
    assert nearest_entry(vectors, entries, exact=False).tolist() == brute_force(vectors, entries)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e25])
def test_very_small_and_very_large_numbers_are_searched_exactly(scale):
    vectors, entries = scale * random_rows(20, 4, 9), scale * random_rows(15, 4, 10)
    assert nearest_entry(vectors, entries).tolist() == brute_force(vectors, entries)


def test_a_row_alone_finds_what_it_finds_in_a_batch():
    vectors, entries = far_from_the_origin()
    together = nearest_entry(vectors, entries)
    alone = torch.cat([nearest_entry(row[None], entries) for row in vectors])
    assert torch.equal(together, alone)


def test_a_codebook_of_one_entry_is_always_found():
    assert nearest_entry(random_rows(5, 3, 0), random_rows(1, 3, 1)).tolist() == [0] * 5


def test_no_vectors_find_no_entries():
    found = nearest_entry(torch.zeros(0, 3), random_rows(4, 3, 1))
    assert found.shape == (0,)
    assert found.dtype == torch.int64


def test_autocast_around_the_search_does_not_round_it():
    vectors, entries = random_rows(100, 16, 11), random_rows(500, 16, 12)
    expected = nearest_entry(vectors, entries, exact=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_entry(vectors, entries, exact=False), expected)


class LargestTensor(TorchFunctionMode):
    """Notes the size of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor):
                self.numel = max(self.numel, made.numel())
        return out


def test_scores_of_a_large_batch_are_never_held_at_once():
    vectors, entries = random_rows(3000, 2, 13), random_rows(4096, 2, 14)
    assert len(vectors) * len(entries) > 2 * SCORES_PER_CHUNK
    with LargestTensor() as largest:
        found = nearest_entry(vectors, entries, exact=False)
    assert len(found) == 3000
    assert SCORES_PER_CHUNK // 2 < largest.numel <= SCORES_PER_CHUNK


def test_rows_of_every_chunk_come_back_in_order():
    entries = torch.arange(4096.0)[:, None]
    wanted = torch.randint(4096, (2500,), generator=torch.Generator().manual_seed(15))
    assert torch.equal(nearest_entry(wanted[:, None].float() + 0.25, entries), wanted)


@pytest.mark.parametrize(
    ("vectors", "entries"), [((5, 3), (7, 4)), ((5,), (7, 5)), ((2, 5, 3), (7, 3)), ((5, 3), (3,))]
)
def test_widths_that_differ_are_refused_with_both_sizes(vectors, entries):
    with pytest.raises(ValueError, match="expected vectors") as caught:
        nearest_entry(torch.zeros(vectors), torch.zeros(entries))
    assert str(vectors) in str(caught.value)
    assert str(entries) in str(caught.value)
