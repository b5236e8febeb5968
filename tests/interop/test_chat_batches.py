"""Jobs of many questions: each is answered once and paid once, whatever happens to the server or to its provider."""

import collections
import contextlib
import http.server
import json
import threading
import time

import chat
import grpc
import pytest
from chat import changes, fail, result, stages
from client import Job, history, rendered, status, watch
from conftest import WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

ONCE = {"retryPolicy": {"maximumAttempts": 1}}
"""Options of a job whose only attempt may not count, or it fails."""


class Provider(http.server.ThreadingHTTPServer):
    """A provider that counts what it is asked, and does as each question says: `answer`, `refuse`, `break` and so on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.asked, self.answered = collections.Counter(), collections.Counter()
        self.now, self.most = 0, 0
        self.takes, self.busy, self.is_up, self.knows_its_model = 0.0, [], True, True
        self.hold = threading.Event()
        self.hold.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.hold.set()
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, *_):
        """A client that is gone is none."""


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        provider = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with provider.lock:
            provider.asked[prompt] += 1
            provider.now += 1
            provider.most = max(provider.most, provider.now)
            refusal = provider.busy.pop() if provider.busy else None
        try:
            provider.hold.wait()
            time.sleep(provider.takes)
            self.answer(provider, prompt, body, refusal)
        finally:
            with provider.lock:
                provider.now -= 1

    def answer(self, provider, prompt, body, refusal):
        if refusal is not None:
            return self.say(429, {"error": {"message": "slow down"}}, refusal)
        if not provider.is_up or prompt.startswith("break"):
            return self.say(500, {"error": {"message": "an accident"}})
        if not self.server.knows_its_model:
            return self.say(404, {"error": {"message": "no such model"}})
        if prompt.startswith("forbid"):
            return self.say(403, {"error": {"message": "flagged"}})
        if prompt.startswith("refuse"):
            return self.say(400, {"error": {"message": "not this one"}})
        if prompt.startswith("bar"):
            return self.say(401, {"error": {"message": "no such key"}})
        words = f"{prompt} of {len(body['messages'])} with {body.get('max_tokens')}"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in (words[:3], words[3:]):
            self.event({"choices": [{"delta": {"content": piece}}]})
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        with provider.lock:
            provider.answered[prompt] += 1
            # Once it has all, the client may well be here again before this thread goes on.
            provider.now -= 1
        try:
            self.event({"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
        finally:
            self.close_connection = True
            with provider.lock:
                provider.now += 1

    def event(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def say(self, status, value, retry_after=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing on standard error."""


@pytest.fixture
def provider():
    with Provider() as provider:
        yield provider


@pytest.fixture
def serve(tmp_path, provider):
    """Starts a server: `serve(max_concurrent=4)`."""
    with contextlib.ExitStack() as servers:

        def serve(**settings):
            settings = {"url": provider.url, "max_concurrent": 4, "max_tokens": 7, **settings}
            server = chat.serve(tmp_path, batch=settings)
            servers.callback(server.stop)
            return server

        yield serve


def start(server, items, options=(), **shared):
    body = {"kind": "batch", "input": {"items": items, **shared}, "options": dict(options)}
    request = json_format.ParseDict(body, job_service_pb2.StartJobRequest())
    return server.jobs.StartJob(request, timeout=WAIT)


def lines(text):
    """What the output says of each item that is finished: in any order, but of none twice."""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    by_index = {line["index"]: line for line in found}
    assert len(by_index) == len(found), f"an item is there twice: {text}"
    return by_index


def finished(server, job):
    """What a watcher of a job that has succeeded saw, and the lines that it ends with."""
    messages = watch(server, job)
    final = status(server, job)
    assert final.state == Job.SUCCEEDED, final
    return messages, lines(rendered(messages)), result(final)


def test_each_item_has_a_line_and_the_result_is_what_they_come_to(serve, provider):
    server = serve(prices={"m": {"input": 1.0, "output": 2.0}})
    system = {"role": "system", "content": "Be brief."}
    items = ["one", {"prompt": "two", "id": "b"}, {"messages": [{"role": "user", "content": "three"}], "max_tokens": 2}]

    messages, by_index, total = finished(server, start(server, items, messages=[system]))

    assert [by_index[n]["text"] for n in range(3)] == ["one of 2 with 7", "two of 2 with 7", "three of 2 with 2"]
    assert [by_index[n].get("id") for n in range(3)] == [None, "b", None]
    assert by_index[0]["usage"] == {"input_tokens": 10, "cached_tokens": 0, "output_tokens": 3}
    assert (by_index[0]["finish_reason"], by_index[0]["truncated"], by_index[0]["model"]) == ("stop", False, "m")
    assert (total["items"], total["answered"], total["failed"]) == (3, 3, 0)
    assert total["usage"]["output_tokens"] == 9 and total["cost"] == pytest.approx(3 * 16e-6)
    assert stages(messages) == ["Answering"]


def test_at_most_so_many_are_asked_at_once_and_the_percent_is_true(serve, provider):
    provider.takes = 0.02
    server = serve(max_concurrent=4, batch_concurrent=3)

    messages, by_index, _ = finished(server, start(server, [f"question {n}" for n in range(40)]))

    assert (len(by_index), provider.most) == (40, 3)
    told = [message.progress for message in messages if message.HasField("progress")]
    assert all(one.fraction == pytest.approx(min(one.completed / 40, 0.99)) and not one.estimated for one in told)
    assert {(one.total, one.unit) for one in told} == {(40, "items")} and len({one.completed for one in told}) > 3


def test_a_single_job_has_its_turn_beside_a_batch(serve, provider):
    provider.takes = 0.01
    server = serve(max_concurrent=2)
    batch = start(server, [f"question {n}" for n in range(200)])
    until(lambda: len(provider.answered) > 5, "a batch that is under way")

    single = chat.start(server, "batch", "a single one")
    messages = watch(server, single)

    assert status(server, single).state == Job.SUCCEEDED and status(server, batch).state == Job.RUNNING
    assert stages(messages)[-2:] == ["Waiting for the provider", "Writing"] and provider.most == 2
    chat.cancel(server, batch)


def test_an_item_that_is_refused_has_its_error_and_the_others_their_answers(serve, provider):
    server = serve()

    items = ["a", {"prompt": "refuse", "id": "r"}, "b", "forbid"]
    _, by_index, total = finished(server, start(server, items, ONCE))

    error = by_index[1]["error"]
    assert (error["reason"], error["details"]["status"]) == ("PROVIDER_REFUSED", 400) and "not this one" in error["message"]
    assert "text" not in by_index[1] and "error" not in by_index[0] and by_index[1]["id"] == "r"
    assert (total["answered"], total["failed"]) == (2, 2) and by_index[3]["error"]["details"]["status"] == 403
    assert provider.asked["refuse"] == 1


def test_an_item_that_fails_by_accident_is_asked_three_times(serve, provider):
    server = serve(max_concurrent=1)

    _, by_index, total = finished(server, start(server, ["break", "a", "b"], ONCE))

    assert provider.asked == {"break": 3, "a": 1, "b": 1}
    assert by_index[0]["error"]["reason"] == "PROVIDER_ERROR" and (total["answered"], total["failed"]) == (2, 1)


@pytest.mark.parametrize("bad", [range(0, 12), range(0, 40, 4)], ids=["first", "between"])
def test_however_many_items_always_fail_the_others_are_answered(serve, provider, bad):
    server = serve(max_concurrent=4)
    items = [f"{'break' if n in bad else 'question'} {n}" for n in range(40)]

    _, by_index, total = finished(server, start(server, items))

    assert (total["answered"], total["failed"]) == (40 - len(bad), len(bad))
    assert {index for index, line in by_index.items() if "error" in line} == set(bad)


def test_a_last_item_that_always_fails_is_asked_six_times(serve, provider):
    server = serve(max_concurrent=1)

    messages, by_index, total = finished(server, start(server, ["a", "break"]))

    assert provider.asked == {"a": 1, "break": 6} and by_index[1]["error"]["reason"] == "PROVIDER_ERROR"
    assert (total["answered"], total["failed"]) == (1, 1) and len(failures(messages)) == 1


def test_an_outage_before_any_answer_is_no_items_error(serve, provider):
    server = serve()
    provider.is_up = False
    options = {"retryPolicy": {"initialInterval": "0.1s", "backoffCoefficient": 1, "maximumAttempts": 100}}
    job = start(server, ["a", "b"], options)
    until(lambda: failures(history(server, job)), "an attempt that has failed")
    provider.is_up = True

    _, _, total = finished(server, job)

    assert (total["answered"], total["failed"]) == (2, 0)


def test_when_no_item_is_answered_the_job_has_failed_and_a_retry_begins_anew(serve, provider):
    server = serve()
    provider.knows_its_model = False

    job = start(server, ["a", "b"])
    messages, final = fail(server, job)
    provider.knows_its_model = True
    request = job_service_pb2.RetryJobRequest(job_id=job.id)
    _, by_index, total = finished(server, server.jobs.RetryJob(request, timeout=WAIT))

    assert (final.failure.reason, final.failure.permanent) == ("NO_ANSWERS", True)
    assert "no such model" in final.failure.message and len(lines(rendered(messages))) == 2
    assert total["answered"] == 2 and "text" in by_index[0]


def test_an_account_that_is_refused_ends_the_job_and_not_each_item(serve, provider):
    server = serve(max_concurrent=1)

    messages, final = fail(server, start(server, ["a", "bar", "b", "c"]))

    assert (final.failure.reason, final.failure.permanent) == ("PROVIDER_REFUSED", True)
    assert provider.asked == {"a": 1, "bar": 1} and list(lines(rendered(messages))) == [0]


def test_an_outage_is_the_jobs_and_the_next_attempt_goes_on_where_it_was(serve, provider):
    server = serve(max_concurrent=2)
    provider.takes = 0.02
    options = {"retryPolicy": {"initialInterval": "0.1s", "backoffCoefficient": 1, "maximumAttempts": 100}}
    job = start(server, [f"question {n}" for n in range(30)], options)
    until(lambda: len(provider.answered) > 8, "some answers")
    provider.is_up = False
    until(lambda: failures(history(server, job)), "an attempt that has failed")
    provider.is_up = True

    messages, by_index, _ = finished(server, job)

    assert len(by_index) == 30 and set(provider.answered.values()) == {1}, "none is answered twice"
    assert {(one.reason, one.permanent) for one in failures(messages)} == {("PROVIDER_ERROR", False)}


def failures(messages):
    return [message.state_change.failure for message in messages if message.state_change.failure.reason]


def test_a_short_quiet_is_sat_out_and_a_long_one_gives_the_job_back(serve, provider):
    server = serve(max_concurrent=1)
    provider.busy = [12, 1, 1]

    messages, by_index, _ = finished(server, start(server, ["a", "b", "c"], ONCE))

    assert len(by_index) == 3 and set(provider.answered.values()) == {1}
    assert changes(messages).count(("SCHEDULED", "RELEASED")) == 1
    logs = [message.log.message for message in messages if message.HasField("log")]
    assert len([line for line in logs if "again in 1.000 s" in line and "slow down" in line]) == 2, logs


def test_a_batch_that_is_cancelled_asks_nothing_more(serve, provider):
    provider.hold.clear()
    server = serve(max_concurrent=2)
    job = start(server, [f"question {n}" for n in range(20)])
    until(lambda: len(provider.asked) == 2, "two questions")

    chat.cancel(server, job)
    watch(server, job)
    provider.hold.set()

    assert status(server, job).state == Job.CANCELLED
    until(lambda: provider.now == 0, "a provider that is left alone")
    assert len(provider.asked) == 2


def seen_until_killed(server, job, many):
    """The lines that a watcher has seen when the server is killed, which is when there are so many."""
    messages, killed = [], False
    with contextlib.suppress(grpc.RpcError):
        for message in server.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=0), timeout=WAIT):
            messages.append(message)
            if not killed and len(lines(rendered(messages))) >= many:
                server.process.kill()
                killed = True
    server.kill()
    assert killed, "it ended before"
    return lines(rendered(messages))


def test_nobody_pays_twice_when_the_server_is_killed_in_the_middle(serve, provider):
    provider.takes = 0.03
    server = serve(max_concurrent=4)
    job = start(server, [f"question {n}" for n in range(50)])

    kills = []
    for many in (12, 30):
        seen = seen_until_killed(server, job, many)
        kills.append((seen, provider.asked.copy()))
        server.start()
    messages, by_index, total = finished(server, job)

    assert len(kills[-1][0]) < 50, "it was killed in the middle"
    assert len(by_index) == 50 and total["answered"] == 50
    for seen, asked in kills:
        assert seen.items() <= by_index.items()
        again = [index for index in seen if provider.asked[f"question {index}"] > asked[f"question {index}"]]
        assert not again, "who has a line is not asked again"
    assert provider.asked.total() <= 50 + 2 * 4, "only those that were in flight are asked again"
    assert changes(messages).count(("RUNNING", "ACCEPTED")) == 3
