import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jobs.cli import main
from jobs.doctor import Doctor

COMMANDS = ("tokenize", "detokenize", "retry", "verify", "doctor", "report", "train", "crops", "codebook", "assets")


def test_help_lists_every_command_and_imports_nothing_heavy():
    program = (
        "import json, sys\n"
        "from jobs.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'ray', 'apache_beam', 'pyarrow'} & set(sys.modules)\n"
        "    print(json.dumps([end.code, sorted(heavy)]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *text, last = answer.stdout.splitlines()
    assert json.loads(last) == [0, []]
    for command in COMMANDS:
        assert f"• {command} " in "\n".join(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"spae {command}" in capsys.readouterr().out


def test_version_is_one_line(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("spae ")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["tokenize", "photos"], ["verify", "--no-such-flag"]])
def test_words_the_command_line_does_not_know_end_with_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_what_is_kept_and_how_to_go_on(number, exit_code, monkeypatch, capsys):
    def interrupted(self) -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    def interrupted_at_work(self) -> int:
        try:
            return interrupted(self)
        except KeyboardInterrupt as interruption:
            interruption.add_note("3 of 5 shards are kept.")
            raise

    for run, said in (
        (interrupted, "interrupted. Run the same command again to go on.\n"),
        (interrupted_at_work, "interrupted: 3 of 5 shards are kept. Run the same command again to go on.\n"),
    ):
        monkeypatch.setattr(Doctor, "run", run)
        assert main(["doctor"]) == exit_code
        assert capsys.readouterr().err == said
