"""What the processor `chat` does when, and what is left of it, on a provider's bad days: most of them are llmock's."""

import json
import pathlib
import queue
import time

import chat
import pytest
from chat import changes, details, fail, result, start, succeed
from client import Job, history, rendered, status, watch
from conftest import WAIT, quickest, until

KEY = "sk-this-is-not-to-be-seen-anywhere"
SOON = {"retryPolicy": {"initialInterval": "0.1s"}}
"""Options of a job that is tried again soon."""
ONCE = {"retryPolicy": {"maximumAttempts": 1}}
"""Options of a job whose only attempt may not count, or it fails."""
GIVEN_BACK = ("SCHEDULED", "RELEASED")
ABOUT = 0.95
"""Of a time: a provider's clock begins a moment after the answer has left."""


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    mock = chat.mock(tmp_path_factory.mktemp("mock"))
    yield mock
    mock.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, mock):
    patch = pytest.MonkeyPatch()
    patch.setenv("THE_KEY", KEY)
    provider = {"url": f"{mock.url}/v1", "key_env": "THE_KEY", "models": ["gpt-4o-mini"], "idle_timeout": "1s"}
    kinds = {"again": provider, "once": {**provider, "on_break": "fail"}}
    server = chat.serve(tmp_path_factory.mktemp("server"), "--log", "debug", **kinds)
    yield server
    patch.undo()
    server.stop()


@pytest.fixture
def bad_day(mock):
    """Has the provider do these things, one a request, and asks at the end how its client took it."""

    def plan(*behaviors):
        mock.ask("/_llmock/reset", {})
        mock.ask("/_llmock/scenario", {"behaviors": behaviors})

    yield plan
    verdict = mock.ask("/_llmock/verdict")
    assert verdict["passed"], verdict


def requests(mock):
    return mock.ask("/_llmock/requests")["requests"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_names_a_time_is_left_alone_for_it_and_no_attempt_counts(server, mock, bad_day, status):
    bad_day({"type": "fail", "status": status, "retry_after": 1, "times": 2})

    messages, _ = succeed(server, start(server, "again", options=ONCE))

    assert changes(messages).count(GIVEN_BACK) == 2
    first, second, third = requests(mock)
    for before, after in [(first, second), (second, third)]:
        assert after["started_at"] - before["ended_at"] >= ABOUT * 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_names_no_time_is_left_alone_for_a_growing_one(tmp_path, monkeypatch, status):
    monkeypatch.setattr(Curt, "refusals", [status] * 2)
    with chat.Stub(Curt) as provider:
        server = chat.serve(tmp_path, curt={"url": provider.url})

        messages, final = succeed(server, start(server, "curt", options=ONCE))
        server.stop()

    assert changes(messages).count(GIVEN_BACK) == 2
    assert result(final)["text"] == "At last, in one piece."
    first, second, third = provider.times
    # From a half of it on: of 1 s, and then of 2 s.
    assert second - first >= ABOUT * 0.5 and third - second >= ABOUT * 1


class Curt(chat.Answers):
    """Refuses some requests without a word about when to come again, and knows no streams."""

    refusals = []

    def answer(self, _):
        status = self.refusals.pop() if self.refusals else 200
        self.begin("application/json", status)
        message = {"role": "assistant", "content": "At last, in one piece."}
        self.wfile.write(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]} if status == 200 else {}).encode())


def test_all_jobs_of_a_provider_wait_while_it_does_not_answer(server, mock, bad_day):
    bad_day({"type": "fail", "status": 503, "retry_after": 2})
    first = start(server, "again", "The first.", ONCE)
    until(lambda: requests(mock), "a first request")

    others = [start(server, "again", f"Another, {n}.", ONCE) for n in range(3)]
    elsewhere = start(server, "once", "To another provider.")
    for job in [first, *others, elsewhere]:
        succeed(server, job)

    refused, *answered = requests(mock)
    assert (refused["status"], len(answered)) == (503, 5)
    paused = [one for one in answered if one["started_at"] - refused["ended_at"] >= ABOUT * 2]
    assert len(paused) == 4, "only the other provider's job was not held back"


def test_a_provider_that_is_down_holds_up_its_own_jobs_alone(server, mock, bad_day):
    bad_day({"type": "fail", "status": 503, "times": None})
    jobs = [start(server, "again", f"Question {n}.", ONCE) for n in range(6)]
    until(lambda: requests(mock), "a first refusal")

    other = start(server, "simulate")
    until(lambda: status(server, other).state == Job.SUCCEEDED, "a job of another kind")

    assert not any(status(server, job).state == Job.SUCCEEDED for job in jobs)
    mock.ask("/_llmock/reset", {})
    for job in jobs:
        succeed(server, job)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_no_repeat_can_help_is_asked_once(server, mock, bad_day, status):
    bad_day({"type": "fail", "status": status, "times": None})

    _, final = fail(server, start(server, "again", options=SOON))

    assert (final.failure.reason, final.failure.permanent) == ("PROVIDER_REFUSED", True)
    assert details(final.failure)["status"] == status
    assert len(requests(mock)) == 1


def test_an_accident_of_the_provider_is_another_attempt(server, mock, bad_day):
    bad_day({"type": "fail", "status": 500})

    messages, final = succeed(server, start(server, "again", options=SOON))

    assert ("RETRYING", "PROVIDER_ERROR") in changes(messages)
    assert (final.attempt, len(requests(mock))) == (2, 2)


def test_a_first_token_may_take_longer_than_the_next(server, mock, bad_day):
    bad_day({"type": "slow_first_token", "seconds": 1.5})

    _, final = succeed(server, start(server, "again", options=SOON))

    assert (final.attempt, len(requests(mock))) == (1, 1)
    assert final.metrics["seconds_to_first_token"] > 1, "the limit of a pause amid the answer"


def test_an_account_without_money_is_not_asked_again(server, mock, bad_day):
    bad_day({"type": "fail", "status": 429, "code": "insufficient_quota", "message": "no money is left", "times": None})

    _, final = fail(server, start(server, "again", options=SOON))

    assert (final.failure.reason, final.failure.permanent) == ("PROVIDER_QUOTA", True)
    told = details(final.failure)
    assert (told["status"], told["provider"], told["message"]) == (429, "again", "no money is left")
    assert len(requests(mock)) == 1


FAULTS = [
    ("disconnect", {}, "ANSWER_BROKEN"),
    ("truncate", {}, "ANSWER_BROKEN"),
    ("stall", {"stall_seconds": 20}, "ANSWER_BROKEN"),
    ("malformed", {}, "MALFORMED_ANSWER"),
]


@pytest.mark.parametrize(("fault", "more", "reason"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_an_answer_that_breaks_off_is_void_and_asked_for_again(server, mock, bad_day, fault, more, reason):
    bad_day({"type": "stream_fault", "kind": fault, "after_chunks": 3, **more})

    messages, _ = succeed(server, start(server, "again", options=SOON))

    assert ("RETRYING", reason) in changes(messages)
    assert any(message.HasField("output_reset") for message in messages), "part of it was seen, and is void"
    assert len(requests(mock)) == 2


def test_an_answer_that_breaks_off_is_not_paid_twice_where_that_is_set(server, mock, bad_day):
    bad_day({"type": "stream_fault", "kind": "disconnect", "after_chunks": 3})

    messages, final = fail(server, start(server, "once", options=SOON))

    assert (final.failure.reason, final.failure.permanent) == ("ANSWER_BROKEN", True)
    assert (final.attempt, len(requests(mock))) == (1, 1)
    assert rendered(messages), "what was paid for is there to read"


def test_the_key_is_in_no_log_no_event_and_no_file(server, mock, bad_day):
    behavior = {"type": "fail", "status": 401, "message": f"the key {KEY} is unknown"}
    bad_day(behavior)

    messages, final = fail(server, start(server, "again"))

    assert final.failure.message.endswith("the key [key] is unknown")
    seen = [str(messages), str(final), str(history(server, final)), server.log()]
    files = [path for path in pathlib.Path(server.data_dir).rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(KEY in text for text in seen)
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_job_that_is_cancelled_while_the_provider_rests_is_not_asked_for(server, mock, bad_day):
    bad_day({"type": "fail", "status": 429, "retry_after": 2})
    job = start(server, "again", "Never mind.", ONCE)
    until(lambda: status(server, job).state == Job.SCHEDULED, "SCHEDULED")

    chat.cancel(server, job)

    assert changes(watch(server, job))[-1] == ("CANCELLED", "CANCEL_REQUESTED")
    succeed(server, start(server, "again", "The next one."))
    assert len(requests(mock)) == 2
    assert result(status(server, job)) is None


class Endless(chat.Answers):
    """Says one word, waits until somebody hangs up, and notes when that was."""

    def answer(self, _):
        self.begin("text/event-stream")
        self.event({"choices": [{"delta": {"content": "Well"}}]})
        self.connection.settimeout(WAIT)
        try:
            gone = self.connection.recv(1) == b""
        except ConnectionResetError:
            gone = True
        if gone:
            self.server.hung_up.put(time.monotonic())


def test_a_cancel_hangs_up_within_a_second(tmp_path):
    def measured():
        job = start(server, "endless")
        chat.first_word(server, job)
        chat.cancel(server, job)
        answered = time.monotonic()
        took = provider.hung_up.get(timeout=WAIT) - answered
        assert changes(watch(server, job))[-1] == ("CANCELLED", "WORKER_STOPPED")
        return took

    with chat.Stub(Endless) as provider:
        provider.hung_up = queue.Queue()
        server = chat.serve(tmp_path, endless={"url": provider.url})

        assert quickest(measured, enough=1) < 1
        server.stop()
