"""The examples that `longhaul worker` runs, in a worker each, and what is to be seen of them from outside.

Servers and helpers are those of tests/interop, so this folder is run by itself: two files named conftest do not go together.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

from client import Job, status  # noqa: E402
from conftest import BINARY, ROOT  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from longhaul.v1 import job_service_pb2  # noqa: E402

EXAMPLES = ROOT / "examples"
PYTHON = pathlib.Path(os.environ.get("LONGHAUL_MODELS_PYTHON", "/nonexistent/python")).absolute()
"""The Python that has what the examples' requirements.txt ask for."""
PATIENCE = 240
"""Seconds after which a job has failed: models are slow on a machine that has other things to do."""


class Worker:
    """`longhaul worker` as a process of its own."""

    def __init__(self, server, kind, folder, command, cwd=None):
        self.server, self.kind, self.folder, self.log = server, kind, folder, folder.with_name(f"{folder.name}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment(server), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self, input):
        request = job_service_pb2.StartJobRequest(kind=self.kind, input=input)
        return self.server.jobs.StartJob(request, timeout=30)

    def watch(self, job):
        """The messages of a watch, as they come."""
        request = job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=0)
        return self.server.jobs.WatchJob(request, timeout=PATIENCE)

    def do(self, input):
        """Does a job to its end: the messages of its watch, and the job afterwards."""
        job = self.start(input)
        return list(self.watch(job)), status(self.server, job)

    def cancel(self, job):
        request = job_service_pb2.CancelJobRequest(job_id=job.id, grace_period={"seconds": 60})
        self.server.jobs.CancelJob(request, timeout=30)

    def children(self):
        """The processes of an example in Python: its command line names the worker's folder."""
        return {pid for pid, command in processes(self.folder) if command.startswith(str(PYTHON))}

    def stop(self):
        """Ends the worker in good order. Nothing may be left of it."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        left = processes(self.folder)
        assert code == 0, f"the worker ended with {code}:\n{self.log.read_text()}"
        assert not left, f"the worker has ended, but not {left}"

    def kill(self):
        self.process.kill()
        self.process.wait()


def persistent(server, kind, program, folder):
    """A worker with one slot, and a Python program of an example in it, which gets the folder as its argument."""
    command = [BINARY, "worker", "--kind", kind, "--persistent", "--slots", "1", "--"]
    return Worker(server, kind, folder, [*command, PYTHON, EXAMPLES / kind / program, folder])


def environment(server):
    path = f"{BINARY.parent}:{PYTHON.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LONGHAUL_SERVER": server.address, "NO_COLOR": "1"}


def processes(mark):
    """Every process that names something on its command line, with that line."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(mark) in command:
                found.append((int(entry.name), command))
    return found


def typed(example):
    """What a README tells to type, as a script. What it installs is installed already."""
    blocks = re.findall(r"^```console\n((?:.*\n)*?)```$", (EXAMPLES / example / "README.md").read_text(), re.M)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("pip install"))


def shell(script, folder, server):
    """Runs a script whose workers are in the background, and must leave in good order."""
    script = f"set -euo pipefail\n{script}\nfor worker in $(jobs -p); do kill $worker; wait $worker; done"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(server), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"
    return done.stdout


def result(job):
    assert job.state == Job.SUCCEEDED, job
    return json_format.MessageToDict(job.result)


def fractions(messages):
    progress = [message.progress for message in messages if message.HasField("progress")]
    return [each.fraction for each in progress if each.HasField("fraction")]


def stages(messages):
    return [message.stage.name for message in messages if message.HasField("stage")]


def logs(messages):
    return [message.log.message for message in messages if message.HasField("log")]


def seconds_until(stage, messages):
    """From the start of an attempt until one of its stages began."""
    [began] = [message for message in messages if message.state_change.state == Job.RUNNING]
    [stage] = [message for message in messages if message.stage.name == stage]
    return (stage.event_time.ToDatetime() - began.event_time.ToDatetime()).total_seconds()
