"""Every command of README.md and of docs/http.md does what it says: each ```console block is run, or named here with its place.

What stands after the commands of a block is for the reader and is not compared. How a block is run is said in a comment
directly above it: `<!-- test: server -->` against a fresh server on port 3000, `<!-- test: ci -->` in another place,
named in ELSEWHERE; without a comment as it is.
"""

import os
import pathlib
import re
import socket
import subprocess

import pytest
from conftest import BINARY, ROOT, TOOLS

SECONDS = 60
"""How long a block may take."""

PAGES = ["README.md", "docs/http.md"]

# Commands that are run by something else: which file, and what it must contain to be believed.
ELSEWHERE = {
    "cargo run --release -- demo": ("tests/cli.rs", '"demo"'),
    "longhaul serve --listen 127.0.0.1:3000 --data-dir ./jobs --slots 4": ("tests/interop/conftest.py", '"--slots", "4"'),
    "longhaul backup jobs.db --data-dir ./jobs": ("tests/backup.rs", '.arg("backup")'),
    "tests/run": (".ci/run", "tests/run"),
}

BLOCK = re.compile(r"^(?:<!-- test: *(?P<how>.*?) *-->\n)?```(?P<language>.*)\n(?P<body>(?:.*\n)*?)```$", re.M)


def blocks():
    """How to run each block, and its commands."""
    texts = [(ROOT / page).read_text() for page in PAGES]
    for number, block in enumerate((block for text in texts for block in BLOCK.finditer(text)), 1):
        if block["language"] in ("console", "sh", "bash", "shell"):
            commands = [line[2:] for line in block["body"].splitlines() if line.startswith("$ ")]
            name = commands[0] if commands else "no command"
            yield pytest.param(block["how"], commands, id=f"{number}: {name[:50]}")


def run_in_shell(commands, folder):
    """Runs commands in one shell that ends at the first failure, a failure within a pipe included."""
    environment = {**os.environ, "PATH": f"{BINARY.parent}:{TOOLS}:{os.environ['PATH']}", "NO_COLOR": "1"}
    script = "set -euo pipefail\n" + "\n".join(commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"


@pytest.mark.parametrize("how, commands", blocks())
def test_a_block_of_the_readme_runs(how, commands, start_server, tmp_path):
    assert commands, "a block of the console without a command"
    folder = tmp_path / "here"
    folder.mkdir()
    if how is None:
        run_in_shell(commands, folder)
    elif how == "server":
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 3000))
        start_server(listen="127.0.0.1:3000")
        run_in_shell(commands, folder)
    elif re.match(r"ci\b", how):
        for command in commands:
            assert command in ELSEWHERE, f"nothing is known to run {command!r}"
            place, proof = ELSEWHERE[command]
            assert proof in pathlib.Path(ROOT / place).read_text(), f"{place} does not run {command!r}"
    else:
        pytest.fail(f"there is no way to run a block that is called {how!r}")


def test_the_readme_has_commands_that_are_run():
    ways = [block.values[0] for block in blocks()]

    assert "server" in ways
