"""Signals: as exceptions, after an import that is under way, and the second one at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.signals import Terminated, signals_as_exceptions

ROOT = Path(__file__).resolve().parents[2]
TERMINATE = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a module that sends its own process a SIGTERM half-way through its import; gives back its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"{TERMINATE}sum(range(100_000))\nIS_WHOLE = True\n")
        return name

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def send_and_wait(number: int) -> None:
    with signals_as_exceptions():
        os.kill(os.getpid(), number)
        time.sleep(5)


def import_and_wait(name: str) -> None:
    with signals_as_exceptions():
        __import__(name)
        time.sleep(5)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_is_raised_where_the_work_is(number, raised):
    before = signal.getsignal(number)
    with pytest.raises(raised) as caught:
        send_and_wait(number)
    assert caught.type is raised
    assert signal.getsignal(number) is before


def test_an_import_is_finished_before_a_signal_is_raised(package):
    name = package("whole_after_a_signal")
    with pytest.raises(Terminated):
        import_and_wait(name)
    assert sys.modules[name].IS_WHOLE


def test_a_signal_that_waits_for_an_import_is_dropped_with_the_work_over(package, monkeypatch):
    """The work is done, so there is nothing to stop; sent again it would meet whoever answers signals now."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("late"))
    try:
        with signals_as_exceptions():
            __import__(package("last_thing_imported"))
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []


def test_the_second_signal_ends_the_process_at_once():
    code = f"""
from jobs.signals import signals_as_exceptions
{TERMINATE.splitlines()[0]}
with signals_as_exceptions():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("still here")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
