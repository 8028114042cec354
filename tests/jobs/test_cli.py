import json
import subprocess
import sys

import pytest

from jobs.cli import main

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
