"""The kind `chat` against servers that nobody here wrote: llama.cpp with a real model, and llmock, which fails on demand and
judges how its clients bear it."""

import json
import os
import shutil
import socket
import subprocess
import urllib.request

import pytest
from chat import MODEL, PYTHON, Process
from client import Job, history, rendered, states, status, watch
from conftest import TOOLS, WAIT, cannot_run_here, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

KEY = "sk-nobody-may-see-this"


def fetch(url, body=None):
    """What a server says as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return json.load(answer)


def ask(server, kind="chat", options=(), **input):
    """Starts a job, and returns it."""
    body = {"kind": kind, "input": {"prompt": "Tell me a story.", **input}, "options": dict(options)}
    return server.jobs.StartJob(json_format.ParseDict(body, job_service_pb2.StartJobRequest()), timeout=WAIT)


def outcome(server, job):
    """A job that has ended."""
    final = {Job.SUCCEEDED, Job.FAILED, Job.CANCELLED}
    return until(lambda: (found := status(server, job)).state in final and found, "the end of a job")


def result(server, job):
    """What a job that succeeded returned."""
    ended = outcome(server, job)
    assert ended.state == Job.SUCCEEDED, ended
    return json_format.MessageToDict(ended)["result"]


def stages(messages):
    """The stages that a job went through."""
    return [message.stage.name for message in messages if message.HasField("stage")]


def serve_chat(start_server, tmp_path, url, **more):
    """A server with a provider of the kind `chat`."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in more.items()]
    config = tmp_path / "longhaul.toml"
    config.write_text("\n".join(["[chat.chat]", f'url = "{url}"', *lines, "extra = { return_progress = true }"]))
    return start_server("--config", config)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The address of a llama.cpp server."""
    known = subprocess.run([PYTHON, "-c", "import xllamacpp"], capture_output=True)
    if known.returncode:
        cannot_run_here("there is no xllamacpp")
    process = Process(tmp_path_factory.mktemp("llama"), "llama.cpp", PYTHON, MODEL, "--port", 0, "--slots", 2)
    yield process.url
    process.close()


@pytest.fixture
def llama_chat(llama, start_server, tmp_path):
    """A server whose provider is llama.cpp."""
    return serve_chat(start_server, tmp_path, f"{llama}/v1", max_concurrent=2, max_tokens_limit=400)


def busy(llama):
    """How many of its slots work."""
    return sum(slot["is_processing"] for slot in fetch(f"{llama}/slots"))


def test_a_real_model_streams_and_its_tokens_are_counted(llama_chat):
    words = "The quick brown fox jumps over the lazy dog. " * 14
    job = ask(llama_chat, prompt=words, max_tokens=10, temperature=0)

    messages = watch(llama_chat, job)

    said = result(llama_chat, job)
    assert said["text"] == rendered(messages) != ""
    assert said["usage"]["input_tokens"] > 128
    assert said["model"] == "smollm2"
    assert said["truncated"] == (said["finish_reason"] == "length")
    assert stages(messages) == ["Waiting for the provider", "Reading the prompt", "Writing"]
    metrics = status(llama_chat, job).metrics
    assert metrics["output_tokens"] <= 10 and metrics["seconds_to_first_token"] > 0


def test_a_cancelled_job_frees_the_slot_of_the_model(llama, llama_chat):
    job = ask(llama_chat, max_tokens=400, temperature=1.5, seed=1)
    until(lambda: busy(llama) == 1, "a busy slot")

    llama_chat.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=WAIT)
    until(lambda: busy(llama) == 0, "a free slot")

    assert outcome(llama_chat, job).state == Job.CANCELLED


def test_a_prompt_that_is_too_long_fails_for_good_with_the_servers_words(llama_chat):
    job = ask(llama_chat, prompt="word " * 6000)

    failed = outcome(llama_chat, job)

    assert (failed.state, failed.attempt, failed.failure.permanent) == (Job.FAILED, 1, True)
    assert "context" in failed.failure.message and failed.failure.reason == "PROVIDER_REFUSED"


def test_ten_jobs_on_two_slots_wait_in_line_and_finish(llama_chat):
    # The first two have the slots for long enough.
    jobs = [ask(llama_chat, max_tokens=40 if number < 2 else 5, seed=number) for number in range(10)]
    place = status(llama_chat, jobs[-1]).queue_position
    running = [status(llama_chat, job).state == Job.RUNNING for job in jobs]
    waits = [message.queue_update.position for message in watch(llama_chat, jobs[-1]) if message.HasField("queue_update")]

    assert sum(running) <= 2
    assert 1 <= place <= 8 and waits == sorted(waits, reverse=True)
    assert all(result(llama_chat, job)["usage"] for job in jobs)


# Failures on demand.


class Mock:
    """llmock, in a process of its own."""

    def __init__(self, address):
        self.address = address

    def will(self, *behaviors):
        """Queues what it does next."""
        fetch(f"{self.address}/_llmock/scenario", {"behaviors": list(behaviors)})

    def verdict(self):
        """What it thinks of its client."""
        return fetch(f"{self.address}/_llmock/verdict")


@pytest.fixture
def mock():
    """A fresh llmock."""
    program = shutil.which("llmock", path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
    if not program:
        cannot_run_here("there is no llmock")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "serve", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    mock = Mock(f"http://127.0.0.1:{port}")

    def up():
        try:
            return mock.verdict()
        except OSError:
            return None

    until(up, "llmock's first answer")
    yield mock
    process.kill()
    process.wait()


@pytest.fixture
def mock_chat(mock, start_server, tmp_path, monkeypatch):
    """A server whose provider is llmock, with a key."""
    monkeypatch.setenv("THE_KEY", KEY)
    more = {"key_env": "THE_KEY", "models": ["gpt-4o-mini"], "idle_timeout": "1s", "first_token_timeout": "3s"}
    server = serve_chat(start_server, tmp_path, f"{mock.address}/v1", **more)
    yield server
    assert KEY not in server.log()


QUICK = {"retryPolicy": {"maximumAttempts": 4, "initialInterval": "0.2s"}}


@pytest.mark.parametrize(
    "behaviors, attempts, counted",
    [
        ([{"type": "fail", "status": 429, "retry_after": 1}], 2, False),
        ([{"type": "fail", "status": 429, "times": 2}], 3, False),
        ([{"type": "fail", "status": 503, "times": 2}], 3, False),
        ([{"type": "fail", "status": 500}], 2, True),
        ([{"type": "stream_fault", "kind": "disconnect", "after_chunks": 3}], 2, True),
        ([{"type": "stream_fault", "kind": "truncate", "after_chunks": 3}], 2, True),
        ([{"type": "stream_fault", "kind": "malformed", "after_chunks": 3}], 2, True),
        ([{"type": "stream_fault", "kind": "stall", "after_chunks": 3}], 2, True),
        ([{"type": "slow_first_token", "seconds": 1.5}], 1, True),
    ],
    ids=["429 for 1 s", "429", "503", "500", "disconnect", "truncate", "malformed", "stall", "slow"],
)
def test_a_bad_day_of_the_provider_ends_in_success(mock, mock_chat, behaviors, attempts, counted):
    mock.will(*behaviors)
    job = ask(mock_chat, options=QUICK, prompt="Write a few long sentences about the sea.")

    messages = watch(mock_chat, job)

    said = result(mock_chat, job)
    assert said["text"] == rendered(messages), "no void text is left"
    verdict = mock.verdict()
    assert verdict["errors"] == 0 and verdict["attempts"] == attempts, verdict
    assert ("RETRYING" in states(messages)) == (counted and attempts > 1), states(messages)
    assert KEY not in str(history(mock_chat, job))


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_what_no_repeat_can_help_is_asked_once(mock, mock_chat, code):
    mock.will({"type": "fail", "status": code})
    job = ask(mock_chat, options=QUICK)

    failed = outcome(mock_chat, job)

    assert (failed.state, failed.failure.permanent, failed.failure.reason) == (Job.FAILED, True, "PROVIDER_REFUSED")
    assert failed.failure.details["status"] == code
    verdict = mock.verdict()
    assert verdict["errors"] == 0 and verdict["attempts"] == 1, verdict


def test_a_provider_that_is_down_holds_up_its_own_jobs_alone(mock, mock_chat):
    mock.will({"type": "fail", "status": 503, "times": None})
    jobs = [ask(mock_chat, prompt=f"Question {number}") for number in range(6)]
    until(lambda: mock.verdict()["attempts"] >= 1, "a first refusal")

    other = ask(mock_chat, kind="simulate")

    assert outcome(mock_chat, other).state == Job.SUCCEEDED
    assert all(status(mock_chat, job).state in (Job.SCHEDULED, Job.PENDING, Job.RUNNING) for job in jobs)
    fetch(f"{mock.address}/_llmock/reset", {})
    assert all(result(mock_chat, job)["text"] for job in jobs)
