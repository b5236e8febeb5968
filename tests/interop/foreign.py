"""Starts foreign workers, and cuts or swallows their connections.

A worker is a program of its own that nobody here wrote the gRPC part of: `workers/worker.py` or `workers/worker.mjs`.
It has a session of its own, so that a signal reaches all of it.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

from conftest import STUBS, WAIT, cannot_run_here, need_program, until

FOLDER = pathlib.Path(__file__).parent / "workers"
FORMS = [("python", "work"), ("python", "unary"), ("node", "work"), ("node", "unary")]
NODE_MAJOR = 20
"""The oldest Node that the programs are for."""


def need_node(folder):
    """Installs what a folder's lock file names, where that is possible; otherwise the test cannot run here."""
    node, npm = need_program("node"), need_program("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version[1:].split(".")[0]) < NODE_MAJOR:
        cannot_run_here(f"this machine has Node {version}; {NODE_MAJOR} is needed")
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".installed"
    # Tests in another process may want the same folder.
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if installed.exists() and installed.read_bytes() == lock.read_bytes():
            return
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            cannot_run_here("npm could not install the packages within 300 s")
        if done.returncode != 0:
            cannot_run_here(f"npm could not install the packages: {done.stderr[-500:]}")
        shutil.copy(lock, installed)


class Worker:
    """A worker's process and what it has told so far."""

    def __init__(self, command, log_file, **environment):
        self.events = []
        self.log_file = log_file
        with log_file.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                env={**os.environ, **environment},
            )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def told(self, event, **fields):
        """What it has told of this event, with these fields."""
        wanted = {"event": event, **fields}
        return [told for told in list(self.events) if wanted.items() <= told.items()]

    def tells(self, event, **fields):
        """Waits until it tells of this, and returns the first time."""
        return until(lambda: self.told(event, **fields), f"{event} {fields} of a worker")[0]

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def ends(self):
        """Waits for its end, and returns the exit code."""
        code = self.process.wait(WAIT)
        self.reader.join(WAIT)
        return code

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait(WAIT)
        self.reader.join(WAIT)
        # Shown by pytest where the test has failed.
        print(*self.process.args[1:], *self.events, self.log_file.read_text(), sep="\n  ")


def start(folder, language, form, address, name, kind, slots, **more):
    """Starts a worker of a language over a form."""
    if language == "node":
        need_node(FOLDER)
    command = [sys.executable, FOLDER / "worker.py"] if language == "python" else ["node", FOLDER / "worker.mjs"]
    options = {"server": address, "name": name, "kind": kind, "slots": slots, "form": form, **more}
    arguments = [argument for option, value in options.items() for argument in (f"--{option}", str(value))]
    return Worker([*command, *arguments], folder / f"{name}.log", PYTHONPATH=STUBS.name)


class Proxy:
    """A way to a server that can be cut and mended, or that leads nowhere."""

    def __init__(self, address):
        self.lead_to(address)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self.listener.getsockname()[1])
        self.connections, self.is_cut, self.lock = [], False, threading.Lock()
        self.swallowed = set()
        self.flows = threading.Event()
        self.flows.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def lead_to(self, address):
        """Where connections go from now on."""
        host, port = address.split(":")
        self.target = host, int(port)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                with self.lock:
                    if self.is_cut:
                        client.close()
                        continue
                    try:
                        server = socket.create_connection(self.target)
                    except OSError:
                        client.close()
                        continue
                    self.connections += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.flows.wait()
                if source not in self.swallowed:
                    target.sendall(data)
        for end in () if source in self.swallowed else (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Ends every connection, and every one that is tried from now on."""
        with self.lock:
            self.is_cut = True
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.connections.clear()

    def swallow(self):
        """Lets what is connected pass nothing more, and close nothing: neither end learns of it. New ones are as ever."""
        with self.lock:
            self.swallowed.update(self.connections)

    def hold(self):
        """Lets nothing through, and breaks nothing."""
        self.flows.clear()

    def flow(self):
        self.flows.set()

    def mend(self):
        with self.lock:
            self.is_cut = False

    def close(self):
        self.listener.close()
        self.flow()
        self.cut()
