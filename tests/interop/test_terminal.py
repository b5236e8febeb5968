"""The command line as a person at a terminal sees it: typed into tmux, read from its screen."""

import json
import os
import re
import shlex
import subprocess
import time
import uuid

import pytest
from conftest import BINARY, WAIT, need_program


class Terminal:
    """A shell of its own in a terminal of its own."""

    def __init__(self, folder, columns, lines, address):
        self.socket = folder / "tmux"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGHAUL")}
        environment |= {
            "PATH": f"{BINARY.parent}:{os.environ['PATH']}",
            "LONGHAUL_SERVER": f"http://{address}",
            "LC_ALL": "C.UTF-8",
        }
        size = ["-x", str(columns), "-y", str(lines)]
        shell = "bash --norc --noprofile -i"
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", "new-session", "-d", *size, shell]
        subprocess.run(command, env=environment, check=True)
        self.type("PS1='ready''> '; clear", "Enter")
        self.see("^ready>")

    def tmux(self, *arguments):
        return subprocess.run(
            ["tmux", "-S", self.socket, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def type(self, text, *keys):
        """Types a text, and then keys by their tmux names."""
        self.tmux("send-keys", "-l", text)
        if keys:
            self.tmux("send-keys", *keys)

    def run(self, command):
        """Types a command, and returns what is on the screen once it has ended."""
        end = uuid.uuid4().hex
        # The screen shows the command as well: what it prints must not be what was typed.
        self.type(f"clear; {command}; echo {end[:16]}''{end[16:]}:$?", "Enter")
        screen = self.see(end + r":\d+")
        return screen, int(re.search(end + r":(\d+)", screen)[1])

    def screen(self):
        """The lines of the screen; a line that was wrapped is two of them."""
        return self.tmux("capture-pane", "-p").rstrip("\n")

    def see(self, pattern):
        """Waits until the screen shows this, and returns the screen."""
        end = time.monotonic() + WAIT
        while not re.search(pattern, screen := self.screen()):
            assert time.monotonic() < end, f"no {pattern!r} on the screen:\n{screen}"
            time.sleep(0.02)
        return screen

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(tmp_path):
    """Opens terminals: `terminal(server)`, `terminal(server, columns=60)`."""
    need_program("tmux")
    terminals = []

    def start(server, columns=100, lines=30):
        folder = tmp_path / f"terminal{len(terminals)}"
        folder.mkdir()
        terminals.append(Terminal(folder, columns, lines, server.address))
        return terminals[-1]

    yield start
    for one in terminals:
        one.close()


def started(server, seconds=30, prompt="one two three four five six", kind="simulate", **more):
    """Starts a job behind the terminal's back."""
    command = [BINARY, "start", kind, "--server", f"http://{server.address}"]
    if kind == "simulate":
        command += ["--prompt", prompt]
    command += ["--input", json.dumps({"seconds": seconds, **more})]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_job_is_started_and_watched_on_a_bar(server, terminal):
    person = terminal(server)

    person.type("longhaul start simulate --prompt 'to be or not to be' --input '{\"seconds\": 3}' --watch", "Enter")
    running = person.see(r"━+╌+ +\d+ %  \w.* left\n +to be or")
    # Until the prompt is back, the screen may end anywhere.
    end = person.see(r"100 %  SUCCEEDED · after [\d.]+(.*\n)+ready>")

    assert "attempt" not in running, "the first attempt is nothing to tell of"
    # The result stands below the bar, and the output below that.
    assert re.search(r'100 %  SUCCEEDED.*\n.*"text":"Processed: to be or not to be".*\nto be or not to be\n', end), end


@pytest.mark.parametrize("columns", [100, 60])
def test_the_demo_fits_the_screen(server, terminal, columns):
    person = terminal(server, columns=columns, lines=40)

    person.type("longhaul demo --listen 127.0.0.1:0 --exit", "Enter")
    middle = person.see(r"unlucky .* \d+ % .*attempt 2")
    end = person.see(r"unlucky .*SUCCEEDED(.*\n)*ready>")

    for screen in (middle, end):
        bars = re.findall(r"^(\w+) +[━╌]+ +\d+ %", screen, re.MULTILINE)
        assert len(bars) == len(set(bars)), f"a bar was drawn twice:\n{screen}"
        assert max(map(len, screen.splitlines())) <= columns
    # Two lines for each job, none of them wrapped.
    lines = end.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("quick"))
    assert [line.split()[0] for line in lines[first : first + 8 : 2]] == ["quick", "steady", "unlucky", "summary"], end
    assert end.count("SUCCEEDED") == 4, end


def test_a_watch_shows_that_it_reconnects_and_goes_on(start_server, terminal):
    server = start_server()
    person = terminal(server)
    job = started(server, seconds=4, prompt="alpha beta gamma delta epsilon zeta")
    person.type(f"longhaul watch {job}", "Enter")
    person.see(r"\d+ %  .*left")

    server.kill()
    person.see("reconnecting")
    server.listen = server.address
    server.start()
    person.see(r"\d+ %  .*attempt 2")
    end = person.see(r"SUCCEEDED(.*\n)*ready>")

    assert "\nalpha beta gamma delta epsilon zeta\n" in end, end
    assert end.count("━") <= 60, f"a bar was drawn twice:\n{end}"


def test_who_leaves_is_told_how_to_come_back(server, terminal):
    person = terminal(server)
    job = started(server)

    person.type(f"longhaul watch {job}; echo left with $?", "Enter")
    person.see(r"\d+ %  .*left")
    person.tmux("send-keys", "C-c")
    screen = person.see(r"left with \d+")

    assert "The job goes on" in screen and "left with 130" in screen, screen
    # What it says is what can be typed, and the terminal is as it was.
    cancel = re.search(r"longhaul cancel .*", screen)[0]
    screen, code = person.run(cancel)
    assert code == 0 and re.search("CANCELL(ING|ED)", screen), screen


def test_a_job_that_waits_shows_its_place(start_server, terminal):
    server = start_server()
    person = terminal(server)
    first, second = (started(server, kind="nobody") for _ in range(2))

    person.type(f"longhaul watch {second}", "Enter")
    person.see("PENDING · number 2 in the queue")
    subprocess.run([BINARY, "cancel", "--server", f"http://{server.address}", first], check=True, capture_output=True)
    person.see("PENDING · next in the queue")
    person.tmux("send-keys", "C-c")
    person.see("The job goes on")


def test_jobs_are_listed_counted_and_looked_into(start_server, terminal):
    server = start_server()
    person = terminal(server, columns=120)
    done = started(server, seconds=0.1)
    broken = started(server, seconds=0.1, chaos={"error": 1})
    started(server, seconds=0, kind="nobody")
    for job in (done, broken):
        person.run(f"longhaul watch {job} > /dev/null 2>&1")

    screen, code = person.run("longhaul list")
    assert code == 0 and re.search(r"JOB +KIND +STATE", screen), screen
    assert [line.split()[2] for line in screen.splitlines() if re.match(r"[0-9a-f]{8}-", line)] == [
        "PENDING",
        "FAILED",
        "SUCCEEDED",
    ], screen
    assert re.search(r"3 jobs.*1 .*FAILED|3 jobs.*FAILED 1|1 failed", screen, re.IGNORECASE), screen
    screen, _ = person.run("longhaul list --state failed --kind simulate")
    assert broken in screen and done not in screen, screen

    screen, code = person.run(f"longhaul history {broken}")
    assert code == 0
    for what in ("attempt 1", "attempt 2", "attempt 3", "HANDLER_ERROR", "FAILED"):
        assert what in screen, screen

    screen, code = person.run(f"longhaul retry {broken}")
    again = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", screen.replace(broken, ""))
    assert code == 0 and again, screen
    person.run(f"longhaul watch {again[0]}")
    screen, code = person.run(f"longhaul delete {again[0]} {done}")
    assert code == 0 and screen.count("is forgotten") == 2, screen
    screen, code = person.run(f"longhaul delete {done}")
    assert code == 2 and "longhaul: " in screen, screen


def test_a_shell_completes_commands_and_options(server, terminal):
    person = terminal(server)
    person.type("source <(longhaul completions bash)", "Enter")

    person.type("longhaul compl", "Tab")
    person.see(r"longhaul completions ")
    person.type("zs", "Tab")
    person.see(r"longhaul completions zsh")
    person.tmux("send-keys", "C-c")
    person.type("longhaul list --sta", "Tab")
    person.type("canc", "Tab")
    person.see(r"longhaul list --state cancell")
    person.type("i", "Tab")
    person.see(r"longhaul list --state cancelling(\n|$)")


def test_the_manual_page_can_be_read(server, terminal):
    need_program("man")
    person = terminal(server, lines=60)

    screen, code = person.run("longhaul man | man -l - | head -50")

    assert code == 0 and "SYNOPSIS" in screen and "longhaul-start(1)" in screen, screen
