import io
import sys

from jobs import console
from jobs.console import ProgressDisplay


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_progress_is_plain_lines_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with ProgressDisplay("tokenizing", total=100) as display:
        for number in range(1, 6):
            display.update(number * 20, "1 quarantined")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tokenizing: 100 pictures"
    assert lines[1] == "tokenizing: 60 of 100 pictures, 5.0/s, 8 s left, 1 quarantined"
    assert len(lines) == 2


def test_on_a_terminal_progress_is_a_bar_with_rate(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressDisplay("tokenizing", total=100) as display:
        display.update(50, "2 quarantined")
    text = terminal.getvalue()
    assert "50/100" in text
    assert "pictures/s" in text
    assert "2 quarantined" in text
