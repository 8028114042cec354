import io
import json
import os

import pyarrow.parquet as pq
import pytest
from PIL import Image
from runs import files_below, spae_process, wait_for, write_pictures

from jobs.cli import main

NUM_GOOD, NUM_BAD, NUM_SHARDS = 20, 6, 3


@pytest.fixture
def photos(tmp_path):
    folder = write_pictures(tmp_path / "photos", NUM_GOOD)
    for number in range(NUM_BAD):
        (folder / f"bad-{number}.png").write_bytes(b"garbage" if number % 2 else b"")
    return folder


@pytest.fixture
def words(photos, tiny_model_dir):
    return ["tokenize", str(photos), "--model", str(tiny_model_dir), "--num-shards", str(NUM_SHARDS), "--out"]


@pytest.fixture
def run(tmp_path, words):
    assert main([*words, str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def mend(photos, *numbers: int) -> None:
    for number in numbers:
        sink = io.BytesIO()
        Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(sink, format="PNG")
        (photos / f"bad-{number}.png").write_bytes(sink.getvalue())


def rows(run, folder: str = "data") -> dict[str, list]:
    """uri -> the rows of it, over the glob a user would read."""
    found: dict[str, list] = {}
    for path in sorted((run / folder).glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row["uri"].rpartition("/")[2], []).append(row)
    return found


def manifest(run) -> dict:
    return json.loads((run / "manifest.json").read_text())


def test_mended_pictures_come_into_a_part_of_their_own_and_every_count_adds_up(tmp_path, photos, words, run, capsys):
    before = files_below(run)
    mend(photos, 0, 1, 2)
    assert main(["retry", str(run)]) == 0
    assert "retried 6 pictures; 3 are in quarantine now" in capsys.readouterr().out
    after = files_below(run)
    assert all(after[name] == data for name, data in before.items() if name.startswith(("data/", "quarantine/")))
    assert any(name.startswith("data/") and "-retry-1" in name for name in after.keys() - before.keys())
    counts = [manifest(run)[key] for key in ("num_planned", "num_ok", "num_quarantined")]
    assert counts == [NUM_GOOD + NUM_BAD, NUM_GOOD + 3, NUM_BAD - 3]
    assert main(["verify", str(run)]) == 0
    # The same rows as a run that met the mended pictures from the start.
    assert main([*words, str(tmp_path / "fresh")]) == 0
    assert rows(run) == rows(tmp_path / "fresh")


def test_rows_that_fail_again_have_one_attempt_more_each_time(photos, run):
    for attempt in (2, 3):
        assert main(["retry", str(run)]) == 0
        records = rows(run, "quarantine")
        assert [sorted(row["attempt"] for row in records[f"bad-{n}.png"]) for n in range(NUM_BAD)] == [
            [*range(1, attempt + 1)]
        ] * NUM_BAD
    assert main(["verify", str(run)]) == 0
    assert manifest(run)["num_quarantined"] == NUM_BAD


def test_a_reason_chooses_the_rows_and_an_unknown_one_is_refused(photos, run, capsys):
    mend(photos, *range(NUM_BAD))
    assert main(["retry", str(run), "--reason", "NoSuchReason"]) == 2
    assert "(EmptyFile, NotAnImage), got NoSuchReason" in capsys.readouterr().err
    assert main(["retry", str(run), "--reason", "EmptyFile"]) == 0
    assert manifest(run)["quarantined_by_reason"] == {"decode_images/NotAnImage": 3}
    assert main(["retry", str(run), "--reason", "decode_images/NotAnImage"]) == 0
    assert manifest(run)["num_quarantined"] == 0
    assert main(["verify", str(run)]) == 0


def test_a_retry_with_nothing_to_do_says_so_and_writes_nothing(photos, run, capsys):
    mend(photos, *range(NUM_BAD))
    assert main(["retry", str(run)]) == 0
    before = files_below(run)
    capsys.readouterr()
    assert main(["retry", str(run)]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: no picture in quarantine")
    assert files_below(run) == before


def test_an_unfinished_run_is_not_retried(run, capsys):
    (run / "data" / "part-00001.parquet").unlink()
    assert main(["retry", str(run)]) == 2
    assert "expected all 3 shards committed, got 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lost",
    [
        ("manifest.json",),
        ("manifest.json", "data/*-retry-1*"),
        ("manifest.json", "data/part-00001-retry-1*", "quarantine/part-00001-retry-1*"),
    ],
    ids=["before the manifest", "before any commit", "between two shards"],
)
def test_a_retry_that_ended_at_any_point_goes_on_to_the_same_files(photos, run, lost):
    mend(photos, 0, 1, 2, 3)
    old_manifest = (run / "manifest.json").read_bytes()
    assert main(["retry", str(run)]) == 0
    whole = files_below(run)
    for pattern in lost:
        for path in run.glob(pattern):
            path.unlink()
    (run / "manifest.json").write_bytes(old_manifest)
    assert main(["retry", str(run)]) == 0
    again = files_below(run)
    assert again.keys() == whole.keys()
    assert all(again[name] == data for name, data in whole.items() if name != "manifest.json")
    assert manifest(run)["parts"] == json.loads(whole["manifest.json"])["parts"]
    assert main(["verify", str(run)]) == 0


def test_a_retry_killed_in_the_middle_goes_on(photos, run):
    mend(photos, *range(NUM_BAD))
    process = spae_process("retry", run)
    wait_for(run / "rounds" / "00001.json", process)
    process.kill()
    process.communicate()
    assert main(["retry", str(run)]) == 0
    assert main(["verify", str(run)]) == 0
    assert manifest(run)["num_quarantined"] == 0
    assert all(len(found) == 1 for found in rows(run).values())
    assert not os.path.exists(run / "rounds" / "00002.json")
