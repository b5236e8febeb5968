"""Bad requests over plain HTTP whose address and JSON are good: it is in a header, a size or the time, or in what the job is."""

import socket
import time

import pytest
import web
from bad_http import BODY, INVALID, JOB, JOBS, JSON, KEYS, MALFORMED, MIB, NOT_JSON, problem_of, with_input
from client import Job, simulate, start, states, status, watch
from conftest import WAIT, until
from longhaul.v1 import job_service_pb2
from web import ask, query, send, written


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", "")],
        [("content-type", ";")],
        [("content-type", "text/plain")],
        [("content-type", "text/json")],
        [("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "multipart/form-data; boundary=a")],
        [("content-type", "application/vnd.a+json")],
        [("content-type", "application/json, text/plain")],
        [("content-type", "application/json\xff")],
        [JSON, JSON],
        [JSON, ("content-type", "text/plain")],
        [JSON, ("content-encoding", "gzip")],
        [JSON, ("content-encoding", "identity")],
        [JSON, ("content-encoding", "")],
    ],
    ids=str,
)
@pytest.mark.parametrize("target", [JOBS, f"{JOBS}:batchStart", f"{JOB}:cancel"])
def test_a_body_that_is_not_plainly_json_is_refused(server, headers, target):
    problem_of(send(server, written("POST", target, headers, BODY)), *NOT_JSON)


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;a=b"]
)
def test_a_body_that_is_json_is_taken(server, value):
    assert send(server, written("POST", JOBS, [("content-type", value)], BODY)).status == 201


@pytest.mark.parametrize("name", KEYS)
def test_an_idempotency_key_that_is_not_one_text_is_refused(server, name):
    keys, fields = KEYS[name]
    headers = [JSON, *(("idempotency-key", key) for key in keys)]

    for target, body in [(JOBS, fields.replace(b"{", b'{"labels":{},').replace(b",}", b"}")), (f"{JOB}:retry", fields)]:
        problem_of(send(server, written("POST", target, headers, body)), *INVALID)


@pytest.mark.parametrize("key", ["k" * 129, '"' + "k" * 129 + '"', "a\tb", "k" * 10_000])
def test_an_idempotency_key_has_the_limits_of_a_request_id(server, key):
    for target, body in [(JOBS, BODY), (f"{JOB}:retry", b"{}")]:
        problem_of(ask(server, "POST", target, body, [("idempotency-key", key)]), *INVALID, "requestId")


def test_a_batch_has_no_idempotency_key(server):
    problem_of(ask(server, "POST", f"{JOBS}:batchStart", b"{}", [("idempotency-key", "a")]), *INVALID)


def test_a_key_that_names_another_request_is_a_conflict(server):
    key = [("idempotency-key", "used already")]
    assert ask(server, "POST", JOBS, {"kind": "a"}, key).status == 201

    problem_of(ask(server, "POST", JOBS, {"kind": "b"}, key), 409, "REQUEST_ID_REUSED", "requestId")
    problem_of(ask(server, "POST", JOBS, {"kind": "a", "input": {}}, key), 409, "REQUEST_ID_REUSED", "requestId")
    requests = [{"kind": "z"}, {"kind": "c", "requestId": "used already"}]
    answer = ask(server, "POST", f"{JOBS}:batchStart", {"requests": requests})
    problem_of(answer, 409, "REQUEST_ID_REUSED", "requests[1].requestId")


@pytest.mark.parametrize("value", ["x", "-1", "9223372036854775808", "1 2", "1.5", "0x1", "\xff", "1,2", "9" * 23])
def test_a_last_event_that_is_none_is_refused(server, value):
    """Also of a job that is there: the header is looked at first."""
    for job in [JOB, f"{JOBS}/{start(server).id}"]:
        problem_of(ask(server, "GET", f"{job}:watch", headers=[("last-event-id", value)]), *INVALID)


# Bodies where none belongs, and queries.


@pytest.mark.parametrize(
    "method, target",
    [("GET", JOBS), ("GET", JOB), ("DELETE", JOB), ("GET", f"{JOB}:watch"), ("GET", f"{JOBS}:watch"), ("HEAD", JOBS)],
)
def test_a_body_where_none_belongs_is_refused(server, method, target):
    for headers, body in [([JSON], b"{}"), ([JSON], b" "), ([], b"{}")]:
        answer = send(server, written(method, target, headers, body), method)
        assert answer.status == (400 if headers else 415)
    assert ask(server, "GET", JOBS, b"").status == 200, "a body of no bytes is none"


@pytest.mark.parametrize("target", [JOBS, f"{JOBS}:batchStart", f"{JOB}:cancel", f"{JOB}:retry"])
def test_a_query_where_none_belongs_is_refused(server, target):
    for parameters in ["kind=a", "alt=json", "&"]:
        problem_of(ask(server, "POST", f"{target}?{parameters}", BODY), *MALFORMED)


# Sizes and times.


def chunked(size):
    """A body in chunks, which does not say how long it is."""
    head = written("POST", JOBS, [JSON, ("transfer-encoding", "chunked")])
    chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
    return head + chunk * (size // MIB) + b"%x\r\n%s\r\n" % (size % MIB, b" " * (size % MIB)) + b"0\r\n\r\n"


def test_a_body_has_its_limit(server):
    fits = b'{"kind":"a"}'.ljust(4 * MIB)

    assert ask(server, "POST", JOBS, fits).status == 201
    problem_of(ask(server, "POST", JOBS, fits + b" "), 413, "MESSAGE_TOO_LARGE")
    problem_of(send(server, chunked(4 * MIB + 1)), 413, "MESSAGE_TOO_LARGE")
    announced = written("POST", JOBS, [JSON, ("content-length", 2**62)])
    problem_of(send(server, announced), 413, "MESSAGE_TOO_LARGE")
    waits = written("POST", JOBS, [JSON, ("content-length", 5 * MIB), ("expect", "100-continue")])
    problem_of(send(server, waits), 413, "MESSAGE_TOO_LARGE")


def test_an_input_has_its_limit_below_that_of_a_body(server):
    text = b'{"a":"%s"}'

    assert ask(server, "POST", JOBS, with_input(text % (b"x" * (MIB - 8)))).status == 201
    problem_of(ask(server, "POST", JOBS, with_input(text % (b"x" * (MIB - 7)))), *INVALID, "input")


def test_a_body_that_does_not_come_is_not_waited_for(server):
    """One waits for all of it, one for the rest; both have the same seconds."""
    with web.connect(server) as none, web.connect(server) as half:
        request = written("POST", JOBS, [JSON, ("content-length", len(BODY))])
        none.sendall(request)
        half.sendall(request + BODY[:5])
        began = time.monotonic()

        for connection in (none, half):
            problem_of(web.exchange(connection, b""), 408, "BODY_TIMEOUT")
            assert connection.recv(1) == b"", "what comes later must not be taken for a request"
        assert time.monotonic() - began > 5, "a slow link has time"


def test_a_body_that_breaks_off_starts_nothing(server):
    before = ask(server, "GET", f"{JOBS}:count?kinds=broken-off").json()
    with web.connect(server) as connection:
        connection.sendall(written("POST", JOBS, [JSON, ("content-length", 100)]) + b'{"kind":"broken-off"}')
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1 << 16)[:12] in (b"", b"HTTP/1.1 400")

    assert ask(server, "GET", f"{JOBS}:count?kinds=broken-off").json() == before == {}


def test_a_page_ends_early_where_it_would_be_too_large(server):
    kind = "large-inputs"
    request = job_service_pb2.StartJobRequest(kind=kind, input_json='{"a":"%s"}' % ("x" * 700_000))
    jobs = [server.jobs.StartJob(request, timeout=WAIT).id for _ in range(4)]

    found, parameters = [], {"filter.kinds": kind, "view": "FULL", "pageSize": 1_000_000}
    while True:
        answer = ask(server, "GET", f"{JOBS}?{query(parameters)}")
        assert len(answer.body) < 2 * MIB
        page = answer.json()
        found += [job["id"] for job in page["jobs"]]
        if "nextPageToken" not in page:
            break
        parameters["pageToken"] = page["nextPageToken"]

    assert found == jobs[::-1]


def test_the_answer_to_a_thousand_faults_is_short(server):
    bad = {"kind": "ü" * 100, "labels": {"\0" * 64: "ü" * 256}, "requestId": "ü"}

    answer = ask(server, "POST", f"{JOBS}:batchStart", {"requests": [bad] * 1_000})

    assert (answer.status, answer.problem()["reason"]) == INVALID and len(answer.problem()["fields"]) > 3
    assert len(answer.body) < 16 << 10


# States.


def test_a_full_queue_says_when_to_come_again(start_server):
    server = start_server("--queue-max", "2")
    for _ in range(2):
        assert ask(server, "POST", JOBS, {"kind": "nobody-does-this"}).status == 201

    one = {"kind": "nobody-does-this"}
    for target, body in [(JOBS, one), (f"{JOBS}:batchStart", {"requests": [one]})]:
        answer = ask(server, "POST", target, body)
        problem = problem_of(answer, 429, "QUEUE_FULL")
        assert int(answer.header("retry-after")) >= 1 and problem["metadata"] == {"limit": "2"}


@pytest.mark.parametrize("state", [Job.PENDING, Job.RUNNING])
def test_an_active_job_is_neither_repeated_nor_forgotten(server, state):
    kind = "simulate" if state == Job.RUNNING else "nobody-does-this"
    job = server.jobs.StartJob(simulate({"seconds": 60}, kind=kind), timeout=WAIT)
    until(lambda: status(server, job).state == state, Job.State.Name(state))

    problem_of(ask(server, "DELETE", f"{JOBS}/{job.id}"), 409, "JOB_ACTIVE")
    problem_of(ask(server, "POST", f"{JOBS}/{job.id}:retry"), 409, "JOB_ACTIVE")

    assert status(server, job).state == state
    assert ask(server, "POST", f"{JOBS}/{job.id}:cancel").status == 200


def test_after_all_of_it_the_server_works(server):
    """It must also end well, without a panic in its log; the fixture sees to that."""
    assert states(watch(server, start(server)))[-1] == "SUCCEEDED"
    assert ask(server, "GET", f"{JOBS}:count").status == 200
    assert "panicked" not in server.log()
