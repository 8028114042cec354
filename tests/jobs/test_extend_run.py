import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from runs import files_below, spae_process, write_pictures

from jobs.cli import main

ROOT = Path(__file__).resolve().parents[2]
NUM_PICTURES, NUM_SHARDS = 20, 3


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", NUM_PICTURES, num_bad=3)


@pytest.fixture
def words(photos, tiny_model_dir):
    return ["tokenize", str(photos), "--model", str(tiny_model_dir), "--out"]


@pytest.fixture
def run(tmp_path, words):
    assert main([*words, str(tmp_path / "run"), "--num-shards", str(NUM_SHARDS)]) == 0
    return tmp_path / "run"


def paint(path, shade: int) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (40, 44), (shade, 255 - shade, 0)).save(sink, format="PNG")
    path.write_bytes(sink.getvalue())


def change(photos) -> None:
    """Two pictures come, two change, a broken one is mended, a good one breaks, one goes."""
    for number in range(2):
        paint(photos / f"new-{number}.png", 10 * number)
        paint(photos / f"picture-00{number}.png", 100 + number)
    paint(photos / "bad-0.png", 200)
    (photos / "picture-007.png").write_bytes(b"broken by now")
    (photos / "picture-009.png").unlink()


def rows(run) -> dict[str, list]:
    return rows_below(run / "data")


def rows_below(folder) -> dict[str, list]:
    """File name of a picture -> its rows, over the glob that a user would read."""
    found: dict[str, list] = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.setdefault(row["uri"].rpartition("/")[2], []).append(row)
    return found


def manifest(run) -> dict:
    return json.loads((run / "manifest.json").read_text())


def test_an_extended_run_has_the_rows_of_a_fresh_one_and_those_that_are_gone(tmp_path, photos, words, run, capsys):
    gone = rows(run)["picture-009.png"]
    change(photos)
    assert main([*words, str(run)]) == 2
    assert "inputs: 23 there, 24 now (2 added, 1 removed, 4 changed)" in capsys.readouterr().err
    assert main([*words, str(run), "--extend"]) == 0
    captured = capsys.readouterr()
    assert "extending: 2 new, 4 changed, 1 gone" in captured.err
    assert "gone from the inputs, tokens kept: 1, listed in" in captured.out
    assert main([*words, str(tmp_path / "fresh")]) == 0
    assert rows(run) == {**rows(tmp_path / "fresh"), "picture-009.png": gone}
    assert main(["verify", str(run)]) == 0
    assert (run / "data" / "part-00003.parquet").exists()
    (done,) = manifest(run)["rounds"]
    assert [done[key] for key in ("kind", "num_new", "num_changed", "num_deleted")] == ["extend", 2, 4, 1]
    assert pq.read_table(run / done["deleted_path"])["uri"].to_pylist() == [str(photos / "picture-009.png")]
    counts = [manifest(run)[key] for key in ("num_planned", "num_ok", "num_quarantined")]
    assert counts == [25, 22, 3]


def test_the_same_inputs_again_are_nothing_to_do_with_or_without_extend(photos, words, run, capsys):
    change(photos)
    assert main([*words, str(run), "--extend"]) == 0
    before = files_below(run)
    for more in ([], ["--extend"]):
        capsys.readouterr()
        assert main([*words, str(run), *more]) == 0
        assert capsys.readouterr().out.startswith("nothing to do")
    assert files_below(run) == before
    paint(photos / "new-9.png", 9)
    assert main([*words, str(run)]) == 2
    assert "inputs: 1 added, 1 removed, 0 changed (--extend takes them in)" in capsys.readouterr().err


def test_another_setting_is_refused_with_extend_too(photos, words, run, capsys):
    change(photos)
    before = files_below(run)
    assert main([*words, str(run), "--extend", "--num-layers", "2"]) == 2
    assert "layer_grids: ((1, 1), (2, 2), (4, 4), (4, 4)) there, ((1, 1), (2, 2)) now" in capsys.readouterr().err
    assert files_below(run) == before


def test_an_unfinished_run_is_finished_and_extended(photos, words, run):
    for name in ("data/part-00001.parquet", "quarantine/part-00001.parquet", "manifest.json", "_SUCCESS"):
        (run / name).unlink()
    change(photos)
    assert main([*words, str(run), "--extend"]) == 0
    assert main(["verify", str(run)]) == 0
    found = rows(run)
    assert all(len(copies) == 1 for copies in found.values())
    assert {"new-0.png", "new-1.png", "bad-0.png", "picture-000.png"} <= found.keys()


def test_pictures_that_a_retry_mended_can_change_and_break_later(tmp_path, photos, words, run):
    paint(photos / "bad-0.png", 1)
    paint(photos / "bad-1.png", 2)
    assert main(["retry", str(run)]) == 0
    paint(photos / "bad-0.png", 77)
    (photos / "bad-1.png").write_bytes(b"broken again")
    assert main([*words, str(run), "--extend"]) == 0
    assert main(["verify", str(run)]) == 0
    assert main([*words, str(tmp_path / "fresh")]) == 0
    assert rows(run) == rows(tmp_path / "fresh")
    paint(photos / "bad-1.png", 3)
    assert main(["retry", str(run)]) == 0
    assert main(["verify", str(run)]) == 0
    assert len(rows(run)["bad-1.png"]) == 1


# Runs an extension of copies of a run, each time killed right before another file appears, and then once more to the
# end. One interpreter forks all of them: importing torch is what takes the time.
KILL_EVERYWHERE = """
import json, os, pathlib, shutil, sys
import pyarrow.parquet as pq
import torch
from jobs.cli import main
from pipelines.runs.verify import verify_run
from pipelines.storage import LocalStorage

run, folder, *words = sys.argv[1:]

def in_a_child(words, die_before=None):
    pid = os.fork()
    if pid == 0:
        appeared = 0
        def watch(event, arguments):
            nonlocal appeared
            if event in ("os.link", "os.rename") and os.fsdecode(arguments[1]).startswith(copy):
                appeared += 1
                if appeared == die_before:
                    os._exit(99)
        sys.addaudithook(watch)
        try:
            os._exit(main(words))
        finally:
            os._exit(98)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for moment in range(1, 60):
    copy = os.path.join(folder, f"killed-{moment:02d}")
    shutil.copytree(run, copy)
    code = in_a_child([*words, copy, "--extend"], die_before=moment)
    shutil.copytree(os.path.join(copy, "data"), copy + "-data")
    again = in_a_child([*words, copy, "--extend"])
    problems = verify_run(LocalStorage(pathlib.Path(copy))).problems
    print(json.dumps([code, again, problems]), flush=True)
    if code == 0:
        break
"""


@pytest.mark.slow
def test_an_extension_killed_before_any_of_its_writes_goes_on_to_the_same_files(tmp_path, photos, words, run):
    change(photos)
    before = rows(run)
    folder = tmp_path / "copies"
    folder.mkdir()
    command = [sys.executable, "-c", KILL_EVERYWHERE, str(run), str(folder), *words]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    outcomes = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("[")]
    assert outcomes == [[99, 0, []]] * (len(outcomes) - 1) + [[0, 0, []]]
    assert len(outcomes) >= 10
    unbroken = folder / f"killed-{len(outcomes):02d}"
    after = rows(unbroken)
    for moment in range(1, len(outcomes) + 1):
        killed = folder / f"killed-{moment:02d}"
        assert same_files(killed, unbroken)
        # At the moment of death a glob over data/ was right: each row the one from before, or the one from after.
        found = rows_below(folder / f"killed-{moment:02d}-data")
        assert all(copies in (before.get(uri), after.get(uri)) for uri, copies in found.items())
        assert before.keys() - found.keys() <= {"picture-007.png"}  # It has broken, and is in quarantine.


def same_files(one, two) -> bool:
    def parts(folder) -> dict[str, bytes]:
        return {name: data for name, data in files_below(folder).items() if name.startswith(("data/", "quarantine/"))}

    return parts(one) == parts(two)


def test_two_commands_at_once_make_one_extension(photos, words, run):
    change(photos)
    processes = [spae_process(*words, run, "--extend") for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert main(["verify", str(run)]) == 0
    assert len(manifest(run)["rounds"]) == 1
