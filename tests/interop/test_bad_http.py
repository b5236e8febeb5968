"""Bad requests over plain HTTP: the exact status, the stable reason and the field of each, and nothing that is left behind.

The tables are in bad_http.py; bad headers, sizes and times have a file of their own.
"""

import re

import pytest
from bad_http import (
    BARE, BATCHES, BODIES, CANCELS, INVALID, JOB, JOBS, LIST_QUERIES, METHODS, NOWHERE, OTHER_QUERIES, PATHS, problem_of,
)
from client import Job, start, states, status, watch
from conftest import WAIT
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2
from test_bad_input import BAD, request, rows
from web import ask, query, send, written


@pytest.mark.parametrize(
    "target, body, expected",
    [
        pytest.param(target, body, expected, id=f"{target.removeprefix(JOBS)[-12:]}: {name}")
        for target, table in [(JOBS, BODIES), (f"{JOBS}:batchStart", BATCHES), (f"{JOB}:cancel", CANCELS)]
        for name, (body, *expected) in table.items()
    ],
)
def test_a_bad_body_is_refused_by_its_field(server, target, body, expected):
    problem_of(ask(server, "POST", target, body), *expected)


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"a","requestId":"one","request_id":"two"}',
        b'{"kind":"a","options":{"priority":1,"priority":2}}',
        b'{"kind":"a","options":{"retryPolicy":{"maximumAttempts":1},"retry_policy":{"maximumAttempts":2}}}',
        b'{"kind":"a","labels":{"team":"a","team":"b"}}',
    ],
    ids=["both spellings", "twice in the options", "both spellings in the options", "a label twice"],
)
def test_what_is_said_twice_is_not_silently_said_once(server, body):
    """Whoever reads the first and whoever reads the last would see two requests."""
    problem = ask(server, "POST", JOBS, body).problem()

    assert (problem["status"], problem["reason"]) == INVALID


@pytest.mark.parametrize(
    "path, expected", [pytest.param(path, expected, id=path[:60]) for expected, paths in PATHS.items() for path in paths]
)
def test_a_path_leads_where_it_says_or_nowhere(server, path, expected):
    problem_of(ask(server, "GET", path), *expected)


@pytest.mark.parametrize(
    "target, expected",
    [pytest.param(t, expected, id=f"{expected} {t[:20]!a}") for expected, targets in BARE.items() for t in targets],
)
def test_what_is_no_request_ends_the_connection(server, target, expected):
    answer = ask(server, "GET", target)

    assert (answer.status, answer.header("connection"), answer.body) == (expected, "close", b"")


def test_another_servers_name_is_refused(server):
    answer = send(server, written("GET", JOBS, host="evil.example"))

    assert answer.status == 403 and b"allowed_hosts" in answer.body


def test_a_request_that_names_two_servers_is_refused(server):
    """One in its first line and another in its header: who stands between may have looked at either."""
    answer = send(server, written("GET", "http://evil.example/v1/jobs", host="localhost"))

    assert answer.status == 400


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost.evil.example", "null"])
def test_a_page_of_another_site_changes_nothing(server, origin):
    """A browser sends a request without a body for any page, and does not ask before."""
    job = server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="nobody-does-this"), timeout=WAIT)
    headers = [("origin", origin), ("sec-fetch-site", "cross-site"), ("content-type", "text/plain")]

    for call in ["cancel", "retry"]:
        assert ask(server, "POST", f"{JOBS}/{job.id}:{call}", headers=headers).status == 403

    assert status(server, job).state == Job.PENDING


@pytest.mark.parametrize("target", METHODS)
@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "get", "PROPFIND", "X" * 1_000]
)
def test_a_method_that_an_address_does_not_have_is_refused(server, target, method):
    if method in METHODS[target].split(", "):
        return

    answer = ask(server, method, target)

    assert (answer.status, answer.header("allow")) == (405, METHODS[target])
    if method != "HEAD":
        assert METHODS[target] in problem_of(answer, 405, "METHOD_UNKNOWN")["detail"]


def test_an_address_that_is_none_has_no_methods(server):
    for method in ["PUT", "OPTIONS", "TRACE", "POST"]:
        answer = ask(server, method, "/nowhere")
        problem_of(answer, *NOWHERE)
        assert answer.header("allow") is None


@pytest.mark.parametrize(
    "target, field",
    [
        pytest.param(f"{path}?{parameters}", field, id=f"{path.removeprefix(JOBS)[-12:]}?{parameters[:40]}")
        for path, table in [(JOBS, LIST_QUERIES), *OTHER_QUERIES.items()]
        for field, queries in table.items()
        for parameters in queries
    ],
)
def test_a_bad_parameter_is_refused_by_its_name(server, target, field):
    problem_of(ask(server, "GET", target), *INVALID, field)


def test_a_parameter_of_no_end_is_refused(server):
    """As long as a request can be, and the answer is short all the same."""
    answer = ask(server, "GET", f"{JOBS}?{'x' * 15_000}=1")

    assert (answer.status, answer.problem()["reason"]) == INVALID and len(answer.body) < 8 << 10


def test_a_page_of_another_list_is_refused(server):
    start(server), start(server)
    page = ask(server, "GET", f"{JOBS}?pageSize=1&filter.kinds=simulate").json()
    token = query({"pageToken": page["nextPageToken"]})

    for other in ["", "&filter.kinds=another", "&filter.kinds=simulate&filter.states=RUNNING"]:
        problem_of(ask(server, "GET", f"{JOBS}?{token}{other}"), *INVALID, "pageToken")
    assert ask(server, "GET", f"{JOBS}?{token}&filter.kinds=simulate&view=FULL").status == 200


# Every fault of a message that JSON can say is refused over JSON as it is over gRPC.

CALLS = {
    "StartJob": ("POST", JOBS),
    "BatchStartJobs": ("POST", f"{JOBS}:batchStart"),
    "GetStatus": ("GET", JOBS + "/{}"),
    "WatchJob": ("GET", JOBS + "/{}:watch"),
    "CancelJob": ("POST", JOBS + "/{}:cancel"),
    "ListJobEvents": ("GET", JOBS + "/{}/events"),
    "WatchJobs": ("GET", f"{JOBS}:watch"),
    "ListJobs": ("GET", JOBS),
    "CountJobs": ("GET", f"{JOBS}:count"),
    "RetryJob": ("POST", JOBS + "/{}:retry"),
    "DeleteJob": ("DELETE", JOBS + "/{}"),
}
LONGEST = 14_000
"""Characters of an address that are certainly not too many."""


def parameters(fields, prefix=""):
    """The fields of a message as parameters of an address."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from parameters(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def spoken():
    """The rows of the table of gRPC that JSON can say."""
    for row in rows(BAD):
        method, path, value, named = row.values
        try:
            fields = json_format.MessageToDict(request(method, path, value))
        except (ValueError, OverflowError, TypeError, json_format.Error):
            # JSON has no form for it, so nobody can send it.
            continue
        if path == "job_id" and not value.isascii() or path == "job_id" and not value:
            continue
        verb, target = CALLS[method]
        target = target.format(fields.pop("jobId", ""))
        if verb == "POST":
            yield pytest.param(verb, target, fields, named, id=row.id)
        else:
            written = query(list(parameters(fields)))
            if fields and len(written) < LONGEST and len(target) < LONGEST or path == "job_id" and len(target) < LONGEST:
                yield pytest.param(verb, f"{target}?{written}", None, named, id=row.id)


@pytest.mark.parametrize("method, target, body, named", spoken())
def test_what_grpc_refuses_json_refuses_by_the_same_field(server, method, target, body, named):
    answer = ask(server, method, target, body)

    problem = answer.problem()
    assert (answer.status, problem["reason"]) == INVALID, problem
    # An input is one text here, however it was sent; and what stands in quotes is the client's own.
    path, *key = re.sub(r"\binput(_json|\..*)$", "input", named).split('"', 1)
    path = re.sub("_(.)", lambda letter: letter[1].upper(), path)
    assert {field["field"] for field in problem["fields"]} == {'"'.join([path, *key])}


def test_after_all_of_it_the_server_works(server):
    """It must also end well, without a panic in its log; the fixture sees to that."""
    assert states(watch(server, start(server)))[-1] == "SUCCEEDED"
    assert ask(server, "GET", f"{JOBS}:count").status == 200
    assert "panicked" not in server.log()
