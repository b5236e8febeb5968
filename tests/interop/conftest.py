"""Starts the real binary for clients that nobody here wrote, and makes Python stubs of the contract.

The binary is the one that LONGHAUL_BINARY names. Every server has a folder and a port of its own, must exit with 0 on
SIGTERM, and must not have logged a panic.
"""

import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import pytest
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BINARY = pathlib.Path(os.environ.get("LONGHAUL_BINARY", ROOT / "target/debug/longhaul")).absolute()
TOOLS = pathlib.Path(sys.executable).parent
WAIT = 30
"""Seconds after which anything that should have happened has failed."""

STUBS = tempfile.TemporaryDirectory(prefix="longhaul-stubs-")
FILES = sorted(str(file.relative_to(PROTO)) for file in PROTO.rglob("*.proto"))
OUT = [f"--python_out={STUBS.name}", f"--grpc_python_out={STUBS.name}"]
GOOGLE = pathlib.Path(protoc.__file__).parent / "_proto"
if protoc.main(["protoc", f"-I{PROTO}", f"-I{GOOGLE}", *OUT, *FILES]):
    raise SystemExit("no stubs could be made from proto/")
sys.path[:0] = [STUBS.name]

from longhaul.v1 import job_service_pb2_grpc  # noqa: E402  (it has just been made)

# Where all of this runs in the background, a shell has it ignore SIGINT, and so would every program that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = {
    "test_ai": "port 3000", "test_readme": "port 3000",
    "test_examples": "examples", "test_example_faults": "examples",
}
"""Files that must not run beside each other, by what they share: the examples write generated code into their folders."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A file stays in one process, where its tests share a server."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(TOGETHER.get(item.path.stem, item.path.stem)))


class Server:
    """A server with a folder of its own, which outlives its process."""

    def __init__(self, folder, *settings, listen="127.0.0.1:0"):
        self.data_dir = folder / "data"
        self.log_file = folder / "log"
        self.settings = settings
        self.listen = listen
        self.process = None
        self.start()

    def start(self):
        """Starts the process, and returns once it listens."""
        command = [BINARY, "serve", "--listen", self.listen, "--data-dir", self.data_dir, "--slots", "4"]
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self.settings], stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith("longhaul listening on "):
            self.process.kill()
            pytest.fail(f"the server said {line!r} instead of where it listens; its log:\n{self.log()}")
        self.address = line.split()[3].rstrip(";")
        # Room for the largest requests on our side, so that it is the server that refuses them.
        self.channel = grpc.insecure_channel(self.address, [("grpc.max_metadata_size", 1 << 20)])
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)

    def stop(self):
        """Ends the process in good order, and makes sure that it was good."""
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(WAIT + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"the server did not end on SIGTERM; its log:\n{self.log()}")
        assert code == 0, f"the server ended with {code}; its log:\n{self.log()}"
        assert "panicked" not in self.log(), self.log()

    def kill(self):
        """Ends the process as a crash does."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def log(self):
        """What it has logged so far."""
        return self.log_file.read_text()


@pytest.fixture
def start_server(tmp_path):
    """Starts servers for one test: `start_server("--queue-max", "2")`."""
    servers = []

    def start(*settings, listen="127.0.0.1:0"):
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(Server(folder, *settings, listen=listen))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests of a file that need no other."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def wiretap():
    """Passes one connection on, and counts the bytes: `address, carried = wiretap(server.address)`."""
    listener = socket.create_server(("127.0.0.1", 0))
    carried = {"up": 0, "down": 0}

    def pump(source, target, direction):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                carried[direction] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def tap(address):
        host, port = address.split(":")

        def accept():
            client, server = listener.accept()[0], socket.create_connection((host, int(port)))
            threading.Thread(target=pump, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, "down"), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return "127.0.0.1:{}".format(listener.getsockname()[1]), carried

    yield tap
    listener.close()


def cannot_run_here(why):
    """Skips a test that lacks something here; fails it where LONGHAUL_SKIP_NOTHING says that all is there."""
    if os.environ.get("LONGHAUL_SKIP_NOTHING", "") not in ("", "0"):
        pytest.fail(f"{why}, and with LONGHAUL_SKIP_NOTHING no test is skipped")
    pytest.skip(why)


def need_program(name):
    """Where a program is that somebody else has to bring; without it the test cannot run here."""
    return shutil.which(name) or cannot_run_here(f"there is no {name} on this machine")


def until(condition, what):
    """Waits until a condition holds, and returns what it returned."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"{what} has not happened within {WAIT} s")


def quickest(measure, enough):
    """The shortest time that something took, in seconds, of up to three where none of them is short enough: what a busy machine
    adds to one says nothing about what was done."""
    took = [measure()]
    while min(took) >= enough and len(took) < 3:
        took.append(measure())
    return min(took)


def run(*command, succeeds=True, **options):
    """Runs a program of the virtual environment, and returns what it printed."""
    done = subprocess.run(
        [TOOLS / command[0], *map(str, command[1:])], capture_output=True, text=True, timeout=WAIT, **options
    )
    if succeeds:
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout
    assert done.returncode != 0, f"{command[0]} should have failed: {done.stdout}"
    return done.stdout + done.stderr


def json_values(text):
    """The JSON values that a program printed one after the other."""
    decoder, values, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].strip()
    return values
