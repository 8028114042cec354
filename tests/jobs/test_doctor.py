import json

import pytest

from jobs.cli import main

pytestmark = pytest.mark.slow  # It imports Ray and Beam.


def test_json_has_every_check_and_a_bucket_that_fails_gives_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--json", str(tmp_path / "runs")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    assert answer["checks"][-1]["name"] == str(tmp_path / "runs")
    assert main(["doctor", "ftp://host/[runs]"]) == 1
    assert "[runs]" in capsys.readouterr().out
