"""What tests of the processor `chat` share: providers in processes of their own, and a server whose settings name them."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from client import Job, rendered, states, status, watch
from conftest import ROOT, WAIT, Server
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

PYTHON = pathlib.Path(os.environ.get("LONGHAUL_LLAMA_PYTHON", sys.executable)).absolute()
"""The Python that has the real model."""
MODEL = ROOT / "examples/chat-local/model.py"


class Process:
    """A provider, which says on a line of its own where it listens."""

    def __init__(self, folder, name, *command):
        self.log_file = folder / f"{name}.log"
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        for line in self.process.stdout:
            if found := re.search(r"http://\S+:\d+", line):
                self.url = found[0]
                return
        pytest.fail(f"{name} does not listen:\n{self.log_file.read_text()}")

    def ask(self, path, body=None, timeout=WAIT):
        """The JSON that it answers with."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def serve(folder, *flags, **providers):
    """A server with these providers, each the settings of a kind."""
    file = folder / "longhaul.toml"
    tables = []
    for kind, settings in providers.items():
        lines = [f"{name} = {toml(value)}" for name, value in settings.items()]
        tables.append("\n".join([f"[chat.{kind}]", *lines]))
    file.write_text("\n\n".join(tables) + "\n")
    return Server(folder, "--config", file, *flags)


def toml(value):
    """A value as TOML has it, which but for tables is as JSON has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)


def start(server, kind, prompt="Say something.", options=(), **input):
    """Starts a job, and returns it."""
    body = {"kind": kind, "input": {"prompt": prompt, **input}, "options": dict(options)}
    request = json_format.ParseDict(body, job_service_pb2.StartJobRequest())
    return server.jobs.StartJob(request, timeout=WAIT)


def succeed(server, job):
    """What a watcher of a job saw, which has succeeded and whose output is the text that it returns."""
    messages = watch(server, job)
    final = status(server, job)
    assert final.state == Job.SUCCEEDED, final
    assert rendered(messages) == result(final)["text"], "a watcher ends with void text"
    return messages, final


def fail(server, job):
    """What a watcher of a job saw, which has failed."""
    messages = watch(server, job)
    final = status(server, job)
    assert final.state == Job.FAILED, final
    return messages, final


def result(job):
    return json_format.MessageToDict(job.result)


def details(failure):
    return json_format.MessageToDict(failure.details)


def stages(messages):
    """The stages that a job went through."""
    return [message.stage.name for message in messages if message.HasField("stage")]


def changes(messages):
    """Each state with its reason."""
    change = (message.state_change for message in messages if message.HasField("state_change"))
    return [(state, one.reason) for state, one in zip(states(messages), change, strict=True)]


def cancel(server, job):
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=WAIT)
