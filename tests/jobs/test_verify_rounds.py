"""A run that was retried and extended: whichever of its files is damaged or gone, `spae verify` finds it."""

import shutil

import pytest
from runs import files_below, write_pictures

from jobs.cli import main
from pipelines.errors import PipelineError
from pipelines.runs.verify import verify_run
from pipelines.storage import LocalStorage
from schemas.versions import SchemaError


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model_dir):
    """Three shards, one of four broken pictures mended and retried, then four pictures more."""
    folder = tmp_path_factory.mktemp("rounds")
    photos, run = write_pictures(folder / "photos", 12, num_bad=4), folder / "run"
    good = (photos / "picture-000.png").read_bytes()
    words = ["tokenize", str(photos), "--model", str(tiny_model_dir), "--out", str(run)]
    assert main([*words, "--num-shards", "3"]) == 0
    (photos / "bad-0.png").write_bytes(good)
    assert main(["retry", str(run)]) == 0
    write_pictures(folder / "more", 4, seed=1)
    for path in (folder / "more").iterdir():
        path.rename(photos / f"more-{path.name}")
    assert main([*words, "--extend"]) == 0
    assert verify_run(LocalStorage(run)).problems == ()
    return run


def is_found(run) -> bool:
    try:
        return bool(verify_run(LocalStorage(run)).problems)
    except (PipelineError, SchemaError):
        return True


def damage(path) -> None:
    """Turn over a byte in the middle; in a plan, whose bytes nobody hashes, one that carries a row."""
    data = bytearray(path.read_bytes())
    data[60 if path.name == "plan.parquet" else len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage, lambda path: path.unlink()], ids=["damaged", "gone"])
def test_whichever_file_it_happens_to(whole, tmp_path, harm):
    names = [name for name in files_below(whole) if name != "_SUCCESS"]
    assert any("-retry-1" in name for name in names)
    assert any("-extend-2" in name for name in names)
    unnoticed = []
    for number, name in enumerate(names):
        run = tmp_path / str(number)
        shutil.copytree(whole, run)
        harm(run / name)
        if not is_found(run):
            unnoticed.append(name)
    assert unnoticed == []


def test_rows_in_a_part_of_another_round(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    part = next((run / "data").glob("*-retry-1*"))
    shutil.copy(run / "data" / part.name.replace("-retry-1", ""), part)
    problems = "\n".join(verify_run(LocalStorage(run)).problems)
    assert f"{part.name}: expected only rows of its retry, got others" in problems
    assert "more than once" in problems
