"""Every command of README.md and of two pages of docs does what it says: each ```console block is run, or named here with its
place.

What stands after the commands of a block is for the reader and is not compared. How a block is run is said in a comment
directly above it: `<!-- test: server -->` against a fresh server on port 3000, `<!-- test: chat -->` with a provider at each
address that it names, `<!-- test: ci -->` in another place, named in ELSEWHERE; without a comment as it is. A block of
another language below `<!-- test: file NAME -->` is a file that the blocks behind it find. A command that ends in `&` runs
until its block is over, and the next one begins when it listens.
"""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess

import chat
import pytest
from conftest import BINARY, ROOT, TOOLS, WAIT

SECONDS = 60
"""How long a block may take."""

PAGES = ["README.md", "docs/http.md", "docs/chat.md"]

# Commands that are run by something else: which file, and what it must contain to be believed.
ELSEWHERE = {
    "cargo run --release -- demo": ("tests/cli.rs", '"demo"'),
    "longhaul serve --listen 127.0.0.1:3000 --data-dir ./jobs --slots 4": ("tests/interop/conftest.py", '"--slots", "4"'),
    "longhaul backup jobs.db --data-dir ./jobs": ("tests/backup.rs", '.arg("backup")'),
    "tests/run": (".ci/run", "tests/run"),
}

BLOCK = re.compile(r"^(?:<!-- test: *(?P<how>.*?) *-->\n)?```(?P<language>.*)\n(?P<body>(?:.*\n)*?)```$", re.M)


def blocks():
    """How to run each block, its commands, and the files that they find."""
    number = 0
    for page in PAGES:
        files = {}
        for block in BLOCK.finditer((ROOT / page).read_text()):
            number += 1
            if file := re.fullmatch(r"file (\S+)", block["how"] or ""):
                files[file[1]] = block["body"]
            elif block["language"] in ("console", "sh", "bash", "shell"):
                commands = [line[2:] for line in block["body"].splitlines() if line.startswith("$ ")]
                name = commands[0] if commands else "no command"
                yield pytest.param(block["how"], commands, dict(files), id=f"{number}: {name[:50]}")


def environment(folder):
    """What a reader's shell may have, but for what could lead it elsewhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LONGHAUL_", "OPENAI_"))}
    return {
        **inherited, "PATH": f"{BINARY.parent}:{TOOLS}:{os.environ['PATH']}", "NO_COLOR": "1",
        "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"),
    }


def run_in_shell(commands, folder):
    """Runs commands in one shell that ends at the first failure, a failure within a pipe included; returns what they say."""
    script = "set -euo pipefail\n" + "\n".join(commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, timeout=SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"
    return done.stdout


@contextlib.contextmanager
def in_the_background(commands, folder):
    """Runs commands beside others, from when they listen on."""
    with contextlib.ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"], cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, text=True,
            )
            stack.callback(end, process)
            line = process.stdout.readline()
            assert line.startswith("longhaul listening on 127.0.0.1:3000"), line
        yield


def end(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0
    process.stdout.close()


def run_with_providers(commands, folder):
    """Runs commands with a provider at each address that they or their files name; both are asked as it is written there."""
    text = "\n".join([*commands, *(file.read_text() for file in folder.iterdir())])
    ports = {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/v1\b", text)}
    beside = [command.removesuffix("&") for command in commands if command.endswith("&")]
    with contextlib.ExitStack() as stack:
        providers = [stack.enter_context(chat.Stub(chat.Answers, port)) for port in ports]
        stack.enter_context(in_the_background(beside, folder))
        said = run_in_shell([command for command in commands if not command.endswith("&")], folder)
    keys = re.findall(r"_KEY=(\S+)", text)
    models = re.findall(r'^models = \["([^"]+)"', text, re.M)
    assert providers, "no block of this kind without a provider"
    for provider in providers:
        (path, key, body), = provider.asked
        assert (path, key) == ("/v1/chat/completions", f"Bearer {keys[0]}" if keys else None)
        assert body["messages"][-1]["content"] in text and body.get("model") == (models[0] if models else None)
    assert "there was a job." in said
    return said


@pytest.mark.parametrize("how, commands, files", blocks())
def test_a_block_of_the_readme_runs(how, commands, files, start_server, tmp_path):
    assert commands, "a block of the console without a command"
    folder = tmp_path / "here"
    folder.mkdir()
    for name, body in files.items():
        (folder / name).write_text(body)
    if how in ("server", "chat"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 3000))
    if how is None:
        run_in_shell(commands, folder)
    elif how == "server":
        start_server(listen="127.0.0.1:3000")
        run_in_shell(commands, folder)
    elif how == "chat":
        run_with_providers(commands, folder)
    elif re.match(r"ci\b", how):
        for command in commands:
            assert command in ELSEWHERE, f"nothing is known to run {command!r}"
            place, proof = ELSEWHERE[command]
            assert proof in pathlib.Path(ROOT / place).read_text(), f"{place} does not run {command!r}"
    else:
        pytest.fail(f"there is no way to run a block that is called {how!r}")


def test_the_readme_has_commands_that_are_run():
    ways = [block.values[0] for block in blocks()]

    assert ways.count("server") > 1 and ways.count("chat") > 1
