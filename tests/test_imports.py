"""What importing the project does: nothing but import, and nothing heavy where a quick answer is wanted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("spae_core", "schemas", "pipelines", "jobs")

# Runs in a fresh interpreter: imports the modules named in argv under an audit hook and prints what they
# touched. Reading Python's own files is what importing is, and libraries ask tempfile where temporary files
# would go, which tries a file out, and urllib3 whether this machine has IPv6, which binds a local address; everything
# else that is opened is reported.
IMPORT_PROBE = """
import importlib, json, os, sys
root, names = sys.argv[1], sys.argv[2:]
touched = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        path = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
        is_write = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and path != os.devnull
        is_ours = os.path.abspath(path).startswith(root + os.sep) and os.sep + ".venv" + os.sep not in path
        if is_write and sys._getframe(1).f_code.co_name == "_get_default_tempdir":
            return
        if is_write or (is_ours and not path.endswith((".py", ".pyc"))):
            touched.append(f"open {path} {mode}")
    elif event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        if sys._getframe(1).f_code.co_name == "_has_ipv6":
            return
        touched.append(f"{event} {arguments[1:]}")
sys.addaudithook(watch)
for name in names:
    importlib.import_module(name)
torch = sys.modules.get("torch")
if torch is not None and torch.cuda.is_initialized():
    touched.append("cuda")
roots = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"touched": touched, "roots": roots}))
"""


def module_names(room: str) -> list[str]:
    """Dotted names of every module of a room; `__main__` is a program, not a module to import."""
    names = []
    for path in sorted((ROOT / room).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def import_in_a_fresh_interpreter(modules: list[str], *search_path: Path) -> dict[str, list[str]]:
    command = [sys.executable, "-B", "-W", "ignore", "-c", IMPORT_PROBE, str(ROOT), *modules]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *search_path)))}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("room", ROOMS)
def test_importing_every_module_of_a_room_opens_no_file_device_or_connection(room: str) -> None:
    names = module_names(room)
    assert names, f"{room}: expected modules, got none."
    assert import_in_a_fresh_interpreter(names)["touched"] == []


def test_the_import_probe_sees_a_read_of_our_files_a_write_and_a_connection(tmp_path: Path) -> None:
    (tmp_path / "bait.py").write_text(
        "import socket\nfrom pathlib import Path\n"
        f"Path({str(ROOT / 'LICENSE')!r}).read_text()\n"
        f"Path({str(tmp_path / 'left_behind')!r}).write_text('x')\n"
        "socket.getaddrinfo('localhost', 80)\n"
    )
    seen = import_in_a_fresh_interpreter(["bait"], tmp_path)["touched"]
    assert [entry.split()[0] for entry in seen] == ["open", "open", "socket.getaddrinfo"]


@pytest.mark.parametrize(
    ("room", "heavy"),
    [
        ("schemas", {"torch", "ray", "apache_beam", "spae_core", "pipelines", "jobs", "tyro"}),
        ("jobs", {"torch", "ray", "apache_beam", "pyarrow", "timm", "transformers", "gcsfs"}),
        ("pipelines.errors", {"torch", "ray", "apache_beam"}),
        ("spae_core.errors", {"torch", "ray", "apache_beam"}),
    ],
)
def test_light_modules_import_nothing_heavy(room: str, heavy: set[str]) -> None:
    names = [room] if "." in room else module_names(room)
    assert heavy & set(import_in_a_fresh_interpreter(names)["roots"]) == set()
