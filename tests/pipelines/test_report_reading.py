"""What the report reads from a run: its words counted, its samples drawn, its quarantine grouped."""

import json
from collections import Counter
from math import exp, log
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from report_runs import GRIDS, HOSTILE_WORDS, NUM_WORDS, small_model, tokenize, write_photos

from pipelines.errors import BadDataError, UsageError
from pipelines.evaluation.report_reading import read_run

NAMES = tuple(f"photo{number}.png" for number in range(12))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("photos"), NAMES)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / NAMES[0]).read_bytes()[:500])
    (folder / "third.png").write_bytes((folder / NAMES[1]).read_bytes()[:400])
    return folder


@pytest.fixture(scope="module")
def run_folder(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenize(photos, tmp_path_factory.mktemp("run") / "tokens", model, num_shards=3)


def test_usage_and_perplexity_are_those_of_all_tokens_of_all_files(run_folder: Path) -> None:
    run = read_run(str(run_folder), num_samples=0)
    tokens: list[Counter[int]] = [Counter() for _ in GRIDS]
    for path in sorted((run_folder / "data").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            for layer in range(len(GRIDS)):
                tokens[layer].update(row[f"tokens_{layer}"])
    for counts, usage in zip(tokens, run.usage, strict=True):
        total = counts.total()
        assert total == len(NAMES) * usage.grid[0] * usage.grid[1]
        assert usage.num_codes_used == len(counts)
        assert usage.codebook_usage == pytest.approx(len(counts) / NUM_WORDS)
        entropy = -sum(n / total * log(n / total) for n in counts.values())
        assert usage.codebook_perplexity == pytest.approx(exp(entropy))
        best = min(counts, key=lambda code: (-counts[code], code))
        assert usage.top_codes[0] == (best, pytest.approx(counts[best] / total))
        shares = [share for _, share in usage.top_codes]
        assert shares == sorted(shares, reverse=True)


def test_rows_bytes_words_and_quarantine_are_those_of_the_files(run_folder: Path) -> None:
    run = read_run(str(run_folder), num_samples=0)
    assert run.num_rows == len(NAMES)
    assert run.num_bytes == sum(path.stat().st_size for path in (run_folder / "data").iterdir())
    assert run.num_quarantined == 3
    reasons = [(group.error_class, group.count) for group in run.quarantine_groups]
    assert reasons == [("TruncatedImage", 2), ("EmptyFile", 1)]
    assert run.quarantine_groups[1].example_uri.endswith("empty.jpg")
    assert run.words[0] == HOSTILE_WORDS[0]
    assert run.token_ids[0] == 100
    assert run.is_finished


def test_words_that_cannot_be_seen_are_spelled_out(run_folder: Path) -> None:
    assert read_run(str(run_folder), num_samples=0).words[5] == "a\\u2028b"


def test_the_draw_is_the_same_whatever_the_number_of_shards(
    run_folder: Path, photos: Path, model: Path, tmp_path: Path
) -> None:
    other = tokenize(photos, tmp_path / "one_shard", model, num_shards=1)
    first, second = (read_run(str(folder), num_samples=5).samples for folder in (run_folder, other))
    assert [row.uri for row in first] == [row.uri for row in second]
    assert len(first) == 5


def test_a_larger_draw_holds_the_smaller_one_in_the_order_of_the_uris(run_folder: Path) -> None:
    few, many, all_rows = (read_run(str(run_folder), num_samples=n).samples for n in (3, 7, 100))
    assert {row.sample_id for row in few} < {row.sample_id for row in many}
    assert len(all_rows) == len(NAMES)
    assert [row.uri for row in all_rows] == sorted(row.uri for row in all_rows)


def test_samples_can_be_asked_for_by_id(run_folder: Path) -> None:
    rows = read_run(str(run_folder), num_samples=100).samples
    asked = [rows[7].sample_id, rows[2].sample_id]
    assert read_run(str(run_folder), num_samples=0, sample_ids=asked).samples == (rows[2], rows[7])


def test_an_unknown_sample_is_named(run_folder: Path) -> None:
    with pytest.raises(UsageError, match="got nobody"):
        read_run(str(run_folder), num_samples=1, sample_ids=["nobody"])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        read_run(str(tmp_path), num_samples=1)


def copy_of(run_folder: Path, folder: Path) -> Path:
    for path in run_folder.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(run_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def test_a_run_without_its_codebook_shows_the_numbers_of_the_codes(run_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(run_folder, tmp_path / "run")
    (folder / "codebook.parquet").unlink()
    run = read_run(str(folder), num_samples=1)
    assert run.words[7] == "#7"
    assert len(run.words) == NUM_WORDS


def test_the_codebook_of_another_run_is_refused(run_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(run_folder, tmp_path / "run")
    table = pq.read_table(folder / "codebook.parquet")
    metadata = {**table.schema.metadata, b"spae.codebook_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "codebook.parquet")
    with pytest.raises(BadDataError, match="Restore the file"):
        read_run(str(folder), num_samples=1)


def test_token_files_of_another_codebook_are_refused(run_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(run_folder, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["codebook_sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "codebook.parquet").unlink()
    with pytest.raises(BadDataError, match="Keep the files of two runs apart"):
        read_run(str(folder), num_samples=1)


def test_an_unfinished_run_counts_what_is_committed(run_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(run_folder, tmp_path / "run")
    for name in ("_SUCCESS", "manifest.json"):
        (folder / name).unlink()
    gone = sorted((folder / "data").iterdir())[0]
    lost = pq.read_metadata(gone).num_rows
    gone.unlink()
    run = read_run(str(folder), num_samples=100)
    assert (run.is_finished, run.manifest) == (False, None)
    assert lost > 0
    assert run.num_rows == len(run.samples) == len(NAMES) - lost
