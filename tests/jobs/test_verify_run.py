from runs import finished_run

from jobs.cli import main


def test_a_right_run_is_said_to_be_right(tmp_path, capsys):
    assert main(["verify", str(finished_run(tmp_path).root)]) == 0
    assert "right. 12 planned = 9 tokenized + 3 quarantined, in 3 shards" in capsys.readouterr().out


def test_a_damaged_run_is_listed_problem_by_problem_with_exit_code_3(tmp_path, capsys):
    run = finished_run(tmp_path).root
    (run / "data" / "part-00000.parquet").unlink()
    (run / "_SUCCESS").unlink()
    assert main(["verify", str(run)]) == 3
    out = capsys.readouterr().out
    assert "data/part-00000.parquet: missing" in out
    assert "_SUCCESS" in out
    assert "2 problems" in out


def test_no_run_is_wrong_usage(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "expected a folder written by `spae tokenize`" in capsys.readouterr().err
