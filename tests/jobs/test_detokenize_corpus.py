import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from runs import files_below, write_pictures

from jobs.cli import main


@pytest.fixture
def run(tmp_path, tiny_model_dir):
    """A run over 20 pictures with the tiny model."""
    photos = write_pictures(tmp_path / "photos", 20)
    out = tmp_path / "run"
    assert main(["tokenize", str(photos), "--out", str(out), "--model", str(tiny_model_dir), "--num-shards", "2"]) == 0
    return out


@pytest.fixture
def spae(capsys):
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["detokenize", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_every_row_becomes_a_picture_of_the_models_size(tmp_path, run, spae):
    code, out, _ = spae(run, "--out", tmp_path / "pictures")
    assert (code, "20 pictures written" in out) == (0, True)
    index = pq.read_table(tmp_path / "pictures" / "index.parquet")
    assert sorted(index["uri"].to_pylist()) == sorted(str(path) for path in (tmp_path / "photos").iterdir())
    for name in index["file_name"].to_pylist():
        assert name.startswith("picture-0")
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (32, 32), "RGB")


def test_the_same_command_again_makes_only_what_is_missing(tmp_path, run, spae):
    spae(run, "--out", tmp_path / "pictures")
    whole = files_below(tmp_path / "pictures")
    victims = sorted((tmp_path / "pictures").glob("*.png"))[:3]
    for victim in victims:
        victim.unlink()
    code, out, _ = spae(run, "--out", tmp_path / "pictures")
    assert (code, "3 pictures written, 17 were there" in out) == (0, True)
    assert files_below(tmp_path / "pictures") == whole


def test_fewer_layers_give_other_pictures_and_their_own_folder(tmp_path, run, spae):
    spae(run, "--out", tmp_path / "all")
    assert spae(run, "--out", tmp_path / "two", "--num-layers", 2)[0] == 0
    code, _, err = spae(run, "--out", tmp_path / "all", "--num-layers", 2)
    assert (code, "num_layers: 4 there, 2 now" in err) == (2, True)
    one, two = files_below(tmp_path / "all"), files_below(tmp_path / "two")
    assert one.keys() == two.keys()
    assert any(one[name] != two[name] for name in one if name.endswith(".png"))


def test_parquet_files_without_their_run_are_enough(tmp_path, run, spae):
    shutil.copytree(run / "data", tmp_path / "copied")
    assert spae(tmp_path / "copied", "--out", tmp_path / "pictures")[0] == 0
    assert spae(run / "data" / "part-00000.parquet", "--out", tmp_path / "one")[0] == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 20
    assert 0 < len(list((tmp_path / "one").glob("*.png"))) < 20


def test_another_model_is_refused_with_both_hashes_and_writes_nothing(tmp_path, run, spae, tiny_model_dir):
    from spae_core.lexical_codebook import LexicalCodebook
    from spae_core.tokenizer import SpaeTokenizer

    own = SpaeTokenizer.from_pretrained(tiny_model_dir)
    codebook = LexicalCodebook(
        embeddings=own.codebook.embeddings.flip(0),
        token_ids=own.codebook.token_ids,
        words=own.codebook.words,
        source="another",
    )
    other = SpaeTokenizer(own.config, codebook)
    other.save_pretrained(tmp_path / "other")
    code, _, err = spae(run, "--out", tmp_path / "pictures", "--model", tmp_path / "other")
    assert code == 2
    assert own.codebook_sha256 in err
    assert codebook.sha256 in err
    assert not (tmp_path / "pictures").exists()


def test_a_model_that_is_gone_can_be_named(tmp_path, tiny_model_dir, spae):
    photos = write_pictures(tmp_path / "photos", 2)
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    main(["tokenize", str(photos), "--out", str(tmp_path / "run"), "--model", str(tmp_path / "model")])
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert spae(tmp_path / "run", "--out", tmp_path / "pictures")[0] == 2
    assert spae(tmp_path / "run", "--out", tmp_path / "pictures", "--model", tmp_path / "moved")[0] == 0


def test_a_row_with_bad_tokens_is_told_and_the_others_are_decoded(tmp_path, run, spae):
    path = run / "data" / "part-00000.parquet"
    table = pq.read_table(path)
    tokens = table["tokens_0"].to_pylist()
    tokens[0] = [64]
    index = table.schema.get_field_index("tokens_0")
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(tokens, table["tokens_0"].type)), path)
    code, out, _ = spae(run, "--out", tmp_path / "pictures")
    assert code == 3
    assert "19 pictures written" in out
    assert "expected code indices in [0, 64), got 64" in out


@pytest.mark.parametrize("words", [["--num-layers", "5"], ["--num-layers", "0"], ["--batch-size", "0"]])
def test_numbers_out_of_range_are_refused(tmp_path, run, spae, words):
    code, _, err = spae(run, "--out", tmp_path / "pictures", *words)
    assert (code, words[0] in err) == (2, True)


def test_no_tokens_are_refused(tmp_path, spae):
    code, _, err = spae(tmp_path, "--out", tmp_path / "pictures")
    assert (code, "expected a run or Parquet files of one" in err) == (2, True)
