import json
import re
import shutil
import uuid
from collections import Counter

import fsspec
import pyarrow.parquet as pq
import pytest
from pictures import DECODED, picture_cases
from runs import files_below, write_pictures

from jobs.cli import main
from schemas.manifest import Manifest


@pytest.fixture
def spae(tiny_model_dir, capsys):
    """Run `spae tokenize` with the tiny model: exit code, output, errors."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["tokenize", "--model", str(tiny_model_dir), *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", 40)


def test_pictures_become_a_dataset_with_every_promised_file(tmp_path, photos, spae):
    code, out, _ = spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    assert code == 0
    assert "40 of 40 pictures tokenized in 3 shards" in out
    assert sorted(files_below(tmp_path / "run")) == [
        *("_SUCCESS", "codebook.parquet", "config.json"),
        *(f"data/part-0000{shard}.parquet" for shard in range(3)),
        *("manifest.json", "plan.parquet"),
        *(f"quarantine/part-0000{shard}.parquet" for shard in range(3)),
    ]
    table = pq.read_table(tmp_path / "run" / "data")
    assert sorted(table["uri"].to_pylist()) == sorted(str(path) for path in photos.iterdir())
    assert {len(tokens) for tokens in table["tokens_1"].to_pylist()} == {4}
    assert set(table["width_px"].to_pylist()) == {45}
    manifest = Manifest.from_json((tmp_path / "run" / "manifest.json").read_text(), where="here")
    assert (manifest.num_planned, manifest.num_ok, manifest.num_processed) == (40, 40, 40)
    assert set(manifest.stages) == {"read_inputs", "decode_images", "tokenize_images", "commit_shards"}


def test_the_same_command_again_does_nothing(tmp_path, photos, spae):
    spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "run").rglob("*")}
    code, out, _ = spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    assert (code, out.startswith("nothing to do: 3 of 3 shards committed")) == (0, True)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "run").rglob("*")}


def test_a_run_with_shards_missing_is_completed_with_the_same_bytes(tmp_path, photos, spae):
    spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    whole = files_below(tmp_path / "run")
    for name in ("data/part-00001.parquet", "_SUCCESS", "manifest.json"):
        (tmp_path / "run" / name).unlink()
    code, _, err = spae(photos, "--out", tmp_path / "run", "--num-shards", 3, "--num-threads", 1)
    assert (code, "resuming: 2 of 3 shards are committed" in err) == (0, True)
    again = files_below(tmp_path / "run")
    assert {**again, "manifest.json": b""} == {**whole, "manifest.json": b""}


def test_bad_pictures_are_quarantined_with_their_reason_and_good_ones_are_not_touched(tmp_path, spae):
    folder = write_pictures(tmp_path / "photos", 5)
    cases = picture_cases()
    for case in cases:
        (folder / case.name).write_bytes(case.encoded)
    arguments = [folder, *(folder / case.name for case in cases), "--max-quarantined-fraction", 1]
    code, _, err = spae(*arguments, "--out", tmp_path / "run")
    assert code == 0
    assert "named more than once" in err
    good = pq.read_table(tmp_path / "run" / "data")["uri"].to_pylist()
    bad = {row["uri"]: row for row in pq.read_table(tmp_path / "run" / "quarantine").to_pylist()}
    for case in cases:
        uri = str(folder / case.name)
        if case.outcome == DECODED:
            assert uri in good, bad.get(uri)
        else:
            assert bad[uri]["error_class"] == case.outcome
            assert bad[uri]["message"]
    assert len(good) + len(bad) == 5 + len(cases)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    reasons = Counter(f"{row['stage']}/{row['error_class']}" for row in bad.values())
    assert manifest["quarantined_by_reason"] == dict(reasons)


def test_mostly_garbage_ends_with_exit_code_3_and_goes_on_with_a_higher_budget(tmp_path, spae):
    folder = write_pictures(tmp_path / "photos", 3)
    for number in range(7):
        (folder / f"garbage-{number}.jpg").write_bytes(b"garbage")
    code, _, err = spae(folder, "--out", tmp_path / "run")
    assert code == 3
    # Counted after a model batch, when the threads ahead of it may have met the last one too.
    assert re.search("expected at most 50% of 10, got [67] ", err)
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "_SUCCESS").exists()
    code, out, _ = spae(folder, "--out", tmp_path / "run", "--max-quarantined-fraction", 0.7)
    assert (code, "3 of 10 pictures tokenized" in out) == (0, True)
    (tmp_path / "run" / "_SUCCESS").unlink()  # as if another process had committed the last shard
    assert spae(folder, "--out", tmp_path / "run")[0] == 3
    assert not (tmp_path / "run" / "_SUCCESS").exists()


def test_another_corpus_or_setting_in_the_same_place_is_refused_with_exit_code_2(tmp_path, photos, spae):
    spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    before = files_below(tmp_path / "run")
    code, _, err = spae(photos, "--out", tmp_path / "run", "--num-shards", 3, "--num-layers", 2)
    assert code == 2
    assert "layer_grids: ((1, 1), (2, 2), (4, 4), (4, 4)) there, ((1, 1), (2, 2)) now" in err
    (photos / "picture-000.png").unlink()
    code, _, err = spae(photos, "--out", tmp_path / "run", "--num-shards", 3)
    assert code == 2
    assert "inputs: 40 there, 39 now (0 added, 1 removed, 0 changed)" in err
    assert files_below(tmp_path / "run") == before


def test_another_model_in_the_same_place_is_refused_by_its_hash(tmp_path, photos, spae, tiny_model_dir, capsys):
    from spae_core.tokenizer import SpaeTokenizer

    tokenizer = SpaeTokenizer.from_pretrained(tiny_model_dir)
    for weights in tokenizer.parameters():
        weights.data.add_(0.5)
    tokenizer.save_pretrained(tmp_path / "other")
    spae(photos, "--out", tmp_path / "run")
    code = main(["tokenize", str(photos), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "other")])
    assert code == 2
    assert "model_sha256: " in capsys.readouterr().err


def test_a_copy_of_the_model_elsewhere_is_the_same_model(tmp_path, photos, spae, tiny_model_dir, capsys):
    spae(photos, "--out", tmp_path / "run")
    shutil.copytree(tiny_model_dir, tmp_path / "copy")
    code = main(["tokenize", str(photos), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "copy")])
    assert (code, "nothing to do" in capsys.readouterr().out) == (0, True)


def test_fewer_layers_write_only_their_columns(tmp_path, photos, spae):
    spae(photos, "--out", tmp_path / "all")
    spae(photos, "--out", tmp_path / "two", "--num-layers", 2)
    two = pq.read_table(tmp_path / "two" / "data")
    assert [name for name in two.schema.names if name.startswith("tokens")] == ["tokens_0", "tokens_1"]
    assert two["tokens_1"] == pq.read_table(tmp_path / "all" / "data")["tokens_1"]


def test_a_runs_config_is_taken_back_and_flags_go_before_it(tmp_path, photos, spae):
    spae(photos, "--out", tmp_path / "run", "--num-shards", 3, "--batch-size", 7)
    config = tmp_path / "run" / "config.json"
    assert main(["tokenize", "--config", str(config), "--out", str(tmp_path / "again")]) == 0
    one, two = files_below(tmp_path / "run"), files_below(tmp_path / "again")
    assert {name: data for name, data in one.items() if name.startswith("data/")} == {
        name: data for name, data in two.items() if name.startswith("data/")
    }
    assert main(["tokenize", "--config", str(config), "--out", str(tmp_path / "2"), "--num-layers", "2"]) == 0
    settings = json.loads((tmp_path / "2" / "config.json").read_text())["settings"]
    assert (settings["num_shards"], settings["batch_size"], len(settings["layer_grids"])) == (3, 7, 2)


def test_the_config_says_everything_that_made_the_bytes(tmp_path, photos, spae, tiny_model_dir):
    spae(photos, "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"] == str(tiny_model_dir)
    assert {"python", "torch", "pillow", "pyarrow", "spae"} <= set(config["versions"])
    assert {"model_sha256", "codebook_sha256", "preprocessing", "decoder", "plan_sha256"} <= set(config["settings"])
    assert config["command"]["inputs"] == [str(photos)]
    assert {"git_commit", "seeds"} <= set(config)


def test_a_bucket_gives_the_same_tokens_as_a_folder(tmp_path, photos, spae):
    root = f"memory://{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("memory")
    for path in photos.iterdir():
        filesystem.pipe_file(f"{root}/photos/{path.name}", path.read_bytes())
    assert spae(photos, "--out", tmp_path / "run")[0] == 0
    assert spae(f"{root}/photos", "--out", f"{root}/run")[0] == 0
    assert spae(f"{root}/photos", "--out", f"{root}/run")[1].startswith("nothing to do")

    def tokens(table) -> dict[str, list[int]]:
        names = [uri.rsplit("/", 1)[-1] for uri in table["uri"].to_pylist()]
        return dict(zip(names, table["tokens_3"].to_pylist(), strict=True))

    remote = pq.read_table(filesystem.open(f"{root}/run/data/part-00000.parquet"))
    assert tokens(remote) == tokens(pq.read_table(tmp_path / "run" / "data"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["EMPTY"], "inputs: expected at least one picture, got none"),
        (["nowhere"], "input nowhere: expected a folder, a glob or a file, got nothing of that name"),
        ([], "inputs: expected at least one folder, glob or file, got none"),
        (["PHOTOS", "--num-layers", "9"], "--num-layers: expected 1 to 4"),
        (["PHOTOS", "--num-shards", "0"], "--num-shards: expected at least 1, got 0"),
        (["PHOTOS", "--max-quarantined-fraction", "50"], "expected a share in [0, 1], got 50.0"),
        (["PHOTOS", "--model", "no-such-model"], "no-such-model"),
        (["--config", "nowhere.json"], "--config nowhere.json: expected a readable file"),
    ],
)
def test_wrong_usage_is_one_message_exit_code_2_and_no_output_folder(tmp_path, photos, spae, words, message):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "PHOTOS": photos}
    code, out, err = spae(*(places.get(word, word) for word in words), "--out", tmp_path / "run")
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
