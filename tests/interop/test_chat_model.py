"""The processor `chat` beside a real model that is asked the same, and the example that brings it."""

import os
import re
import subprocess
import time

import chat
import pytest
from chat import fail, result, stages, start, succeed
from client import Job, states, status, watch
from conftest import BINARY, quickest, until
from longhaul.v1 import job_service_pb2

CONTEXT = 1024
"""Tokens of a conversation; more is an overflow."""
SLOTS = 2
ALWAYS_THE_SAME = {"temperature": 0, "seed": 7}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = chat.model(tmp_path_factory.mktemp("model"), "--slots", SLOTS, "--context", CONTEXT, "--batch", 32)
    yield model
    model.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    url = f"{model.url}/v1"
    # A cache would make an answer depend on the ones before it.
    extra = {"return_progress": True, "cache_prompt": False}
    server = chat.serve(
        tmp_path_factory.mktemp("server"),
        small={
            "url": url, "max_concurrent": SLOTS, "extra": extra, "models": ["smollm2"],
            "prices": {"smollm2": {"input": 1.0, "output": 4.0}},
        },
        endless={"url": url, "max_concurrent": 1, "extra": {"ignore_eos": True}, "max_tokens_limit": CONTEXT - 100},
    )
    yield server
    server.stop()


def busy(model):
    """How many slots of the model write."""
    return sum(slot["is_processing"] for slot in model.ask("/slots"))


def test_a_job_says_what_the_model_says_and_counts_as_it_counts(server, model):
    asked = {"messages": [{"role": "user", "content": "Name three fruits."}], "max_tokens": 40, **ALWAYS_THE_SAME}
    direct = model.ask("/v1/chat/completions", {**asked, "cache_prompt": False})

    job = start(server, "small", "Name three fruits.", max_tokens=40, **ALWAYS_THE_SAME)
    messages, final = succeed(server, job)

    said, usage = direct["choices"][0], direct["usage"]
    returned = result(final)
    assert returned["text"] == said["message"]["content"] and len(returned["text"]) > 20
    assert returned["finish_reason"] == said["finish_reason"]
    assert returned["truncated"] == (said["finish_reason"] == "length")
    assert returned["model"] == direct["model"]
    assert returned["usage"]["input_tokens"] == usage["prompt_tokens"] == final.metrics["input_tokens"]
    assert returned["usage"]["output_tokens"] == usage["completion_tokens"] == final.metrics["output_tokens"]
    cost = (usage["prompt_tokens"] + 4 * usage["completion_tokens"]) / 1e6
    assert returned["cost"] == pytest.approx(cost) and final.metrics["cost"] == pytest.approx(cost)
    assert final.metrics["seconds_to_first_token"] > 0 and final.metrics["tokens_per_second"] > 0
    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert stages(messages) == ["Waiting for the provider", "Reading the prompt", "Writing"]


def test_tokens_are_seen_while_the_model_writes(server, model):
    job = start(server, "endless", "Count.", max_tokens=60)
    request = job_service_pb2.WatchJobRequest(job_id=job.id)

    seen = 0
    for message in server.jobs.WatchJob(request, timeout=chat.WAIT):
        if message.HasField("output") and busy(model):
            seen += 1

    assert seen > 1
    assert result(status(server, job))["truncated"] is True


def test_a_cap_that_is_reached_is_told(server):
    _, final = succeed(server, start(server, "endless", "Count.", max_tokens=5))

    returned = result(final)
    assert (returned["finish_reason"], returned["truncated"]) == ("length", True)
    assert returned["usage"]["output_tokens"] == 5


def test_how_much_of_a_prompt_is_read_is_shown(server):
    job = start(server, "small", "word " * 250, max_tokens=5)

    messages, final = succeed(server, job)

    reading = [m.progress for m in messages if m.HasField("progress") and m.progress.stage == "Reading the prompt"]
    tokens = final.metrics["input_tokens"]
    assert {progress.total for progress in reading} == {tokens}
    assert any(0 < progress.completed < tokens for progress in reading), reading
    assert all(progress.unit == "tokens" for progress in reading)


def test_who_asks_for_another_model_learns_which_there_are(server):
    _, final = fail(server, start(server, "small", model="gpt-9"))

    assert final.failure.message == 'model is "gpt-9"; it must be one of smollm2'
    assert (final.failure.permanent, final.attempt) == (True, 1)


def test_a_cancel_frees_the_slot_of_the_model_within_a_second(server, model):
    def measured():
        job = start(server, "endless", "Tell me a story.")
        until(lambda: busy(model) == 1, "a busy slot")
        chat.cancel(server, job)
        answered = time.monotonic()
        until(lambda: busy(model) == 0, "a free slot")
        took = time.monotonic() - answered
        until(lambda: status(server, job).state == Job.CANCELLED, "CANCELLED")
        return took

    assert quickest(measured, enough=1) < 1


def test_a_prompt_that_is_too_long_fails_for_good_with_the_servers_words(server):
    _, final = fail(server, start(server, "small", "word " * 2 * CONTEXT))

    assert (final.attempt, final.failure.permanent, final.failure.reason) == (1, True, "PROVIDER_REFUSED")
    assert "context" in final.failure.message


def test_ten_jobs_on_two_slots_wait_in_line_and_finish(server):
    # The first two have the slots for long enough.
    jobs = [start(server, "small", max_tokens=40 if number < SLOTS else 5, seed=number) for number in range(10)]
    place = status(server, jobs[-1]).queue_position
    running = [status(server, job).state == Job.RUNNING for job in jobs]
    waits = [message.queue_update.position for message in watch(server, jobs[-1]) if message.HasField("queue_update")]

    assert sum(running) <= SLOTS
    assert 1 <= place <= 8 and waits == sorted(waits, reverse=True)
    for job in jobs:
        succeed(server, job)


def test_the_example_shows_what_its_readme_says(model):
    environment = {**os.environ, "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}

    shown = subprocess.run(
        [chat.PYTHON, chat.MODEL.with_name("chat_local.py")],
        env=environment, capture_output=True, text=True, timeout=2 * chat.WAIT,
    )

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "the second reader is cut off after" in shown.stdout
    assert re.search(r"both read the same \d\d\d+ bytes: yes", shown.stdout), shown.stdout
    assert "cancelled: the model is free after" in shown.stdout
