"""A disk that fills up in the middle of a run."""

import tempfile

from runs import files_below, files_limited_to, write_pictures

from jobs.cli import main


def test_it_is_one_clear_message_and_the_run_goes_on_when_there_is_room(tmp_path, tiny_model_dir, capsys):
    photos = write_pictures(tmp_path / "photos", 60)
    words = ["tokenize", str(photos), "--model", str(tiny_model_dir), "--num-shards", "3", "--out"]
    assert main([*words, str(tmp_path / "run")]) == 0
    whole = files_below(tmp_path / "run")
    sizes = {path: len(data) for path, data in whole.items() if path.startswith("data/")}
    largest = max(sizes, key=sizes.__getitem__)
    for name in [*sizes, "manifest.json", "_SUCCESS"]:
        (tmp_path / "run" / name).unlink()

    with files_limited_to(sizes[largest] - 1):
        assert main([*words, str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert f"output {tmp_path}/run/{largest}: expected room for the file, got: File too large. Free some space" in err
    committed = sorted(sizes)[: sorted(sizes).index(largest)]
    assert f"{len(committed)} of 3 shards are committed and kept." in err
    assert "Traceback" not in err
    left = files_below(tmp_path / "run")
    assert {name: left[name] for name in left if name.startswith("data/")} == {n: whole[n] for n in committed}
    assert not any(name.startswith(".tmp/") for name in left)

    assert main([*words, str(tmp_path / "run")]) == 0
    again = files_below(tmp_path / "run")
    assert all(again[name] == data for name, data in whole.items() if name.startswith("data/"))


def test_a_full_place_for_temporary_files_is_told_with_the_way_out(tmp_path, tiny_model_dir, capsys):
    photos = write_pictures(tmp_path / "photos", 60)
    tempfile.gettempdir()  # Python tries the place out once, with a file of its own.
    with files_limited_to(1000):
        code = main(["tokenize", str(photos), "--model", str(tiny_model_dir), "--out", str(tmp_path / "run")])
    assert code == 1
    assert "set TMPDIR for another): expected room for the file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_that_do_not_fit_are_one_clear_message(tmp_path, tiny_model_dir, capsys):
    photos = write_pictures(tmp_path / "photos", 4)
    assert main(["tokenize", str(photos), "--model", str(tiny_model_dir), "--out", str(tmp_path / "run")]) == 0
    with files_limited_to(700):
        assert main(["detokenize", str(tmp_path / "run"), "--out", str(tmp_path / "pictures")]) == 1
    assert "expected room for the file, got: File too large" in capsys.readouterr().err
    assert list((tmp_path / "pictures").glob("*.png")) == []
    assert main(["detokenize", str(tmp_path / "run"), "--out", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4
