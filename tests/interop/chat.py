"""What tests of the processor `chat` share: providers, and a server whose settings name them."""

import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from client import Job, rendered, states, status, watch
from conftest import ROOT, TOOLS, WAIT, Server, cannot_run_here, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

PYTHON = pathlib.Path(os.environ.get("LONGHAUL_LLAMA_PYTHON", sys.executable)).absolute()
"""The Python that has the real model."""
MODEL = ROOT / "examples/chat-local/model.py"


class Process:
    """A provider, which says on a line of its log where it listens."""

    def __init__(self, folder, name, *command):
        self.name, self.log_file = name, folder / f"{name}.log"
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.url = until(self.address, f"that {name} listens")

    def address(self):
        log = self.log_file.read_text()
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} has ended:\n{log}")
        found = re.search(r"(?:listens|running) on (http://\S+:\d+)\s", log)
        return found and found[1]

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


def model(folder, *flags):
    """A real model, behind llama.cpp's server."""
    if subprocess.run([PYTHON, "-c", "import xllamacpp"], capture_output=True).returncode:
        cannot_run_here("there is no xllamacpp")
    return Process(folder, "model", PYTHON, MODEL, "--port", 0, *flags)


def mock(folder):
    """llmock, which fails on demand and judges how its clients bear it."""
    program = shutil.which("llmock", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}") or cannot_run_here("there is no llmock")
    return Process(folder, "mock", program, "serve", "--port", 0, "--stream-chunk-delay-ms", 5)


class Stub(http.server.ThreadingHTTPServer):
    """A provider of our own: it answers as its class of handlers does, and remembers when it was asked, and what by whom."""

    daemon_threads = True

    def __init__(self, answers, port=0):
        super().__init__(("127.0.0.1", port), answers)
        self.url, self.times, self.asked = f"http://127.0.0.1:{self.server_port}/v1", [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class Answers(http.server.BaseHTTPRequestHandler):
    """Tells a story, in a few pieces."""

    def do_POST(self):
        self.server.times.append(time.monotonic())
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.answer(body)

    def answer(self, body):
        self.begin("text/event-stream")
        for text in ["Once upon a time ", "there was a job."]:
            self.event({"model": body.get("model"), "choices": [{"delta": {"content": text}}]})
        self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}})
        self.wfile.write(b"data: [DONE]\n\n")

    def begin(self, kind, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def event(self, piece):
        self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())

    def log_message(self, *_):
        """Says nothing on standard error."""


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


def first_word(server, job):
    """Waits until there is some output."""
    watch = server.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), timeout=WAIT)
    assert any(message.HasField("output") for message in watch), "it has ended without any"
    watch.cancel()


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
