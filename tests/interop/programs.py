"""Programs under `longhaul worker`: how one is started, and what becomes of all the processes that it starts.

A program is a text of Python in its test. Whatever it starts inherits a mark in its environment, by which it is found.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import uuid

from client import watch
from conftest import BINARY, WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

PREAMBLE = """\
import ctypes, json, os, resource, signal, subprocess, sys, time
job = json.loads(sys.stdin.readline() or "null")
def say(**message): print(json.dumps(message), flush=True)
"""
"""What a program begins with that runs one job."""


ONCE = {"retryPolicy": {"maximumAttempts": 1}}
"""Options of a job that is not tried again."""


class Worker:
    """`longhaul worker` with a program, in a session of its own."""

    def __init__(self, folder, address, program, *flags, kind="program", name="worker", preamble=PREAMBLE, **options):
        self.mark = f"MARK-{uuid.uuid4().hex}"
        self.log_file = folder / f"{name}.log"
        source = folder / f"{name}.py"
        source.write_text(preamble + textwrap.dedent(program))
        command = [BINARY, "worker", "--server", f"http://{address}", "--kind", kind, "--name", name]
        command += ["--env", f"MARK={self.mark}", *flags, "--", sys.executable, "-S", source]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGHAUL_")}
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True, env=environment, **options,
            )
        assert self.process.stdout.readline().startswith(f"longhaul worker {name}"), self.log()

    def programs(self):
        """The processes that the program is and has started, those that wait to be buried left out."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def memory(self):
        """The most memory that the supervisor has had so far, in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def leaves_nothing(self):
        until(lambda: not self.programs(), f"the end of {self.programs()}")

    def log(self):
        return self.log_file.read_text()

    def stop(self):
        """Ends it in good order."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT)
        assert code == 0, f"the worker ended with {code}: {self.log()}"

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT)
        self.process.stdout.close()
        print(self.log())
        self.leaves_nothing()


def start(server, kind="program", input=(), **fields):
    """Starts a job, and returns it."""
    body = {"kind": kind, "input": dict(input), **fields}
    request = json_format.ParseDict(body, job_service_pb2.StartJobRequest())
    return server.jobs.StartJob(request, timeout=WAIT)


def cancel(server, job, grace):
    """Cancels a job, whose program then has so many seconds."""
    request = job_service_pb2.CancelJobRequest(job_id=job.id)
    request.grace_period.FromMilliseconds(int(grace * 1000))
    server.jobs.CancelJob(request, timeout=WAIT)


def ended(server, job):
    """The last change of a job's state, once it has ended."""
    return [message.state_change for message in watch(server, job) if message.HasField("state_change")][-1]


def result(change):
    """What a job that has succeeded returned."""
    return json_format.MessageToDict(change.result)
