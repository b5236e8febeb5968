"""Bad requests over plain HTTP: the exact status, the stable reason and the field of each, and nothing that is left behind.

A request stands here as it is sent, byte by byte.
"""

import json
import re
import socket
import time

import pytest
import web
from client import Job, simulate, start, states, status, watch
from conftest import WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2
from test_bad_input import BAD, NO_SUCH_JOB, request, rows
from web import ask, query, send, written

JOBS = "/v1/jobs"
JOB = f"{JOBS}/{NO_SUCH_JOB}"
JSON = ("content-type", "application/json")
MIB = 2**20


def deep(levels):
    """The text of an object in an object in an object."""
    return ('{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)).encode()


def with_input(text):
    return b'{"kind":"a","input":%s}' % text


def problem_of(answer, status, reason, *fields, name=""):
    """Holds an answer to what it should be."""
    problem = answer.problem()
    named = [field["field"] for field in problem.get("fields", [])]
    assert (answer.status, problem["reason"], named) == (status, reason, list(fields)), (name, problem)
    assert len(answer.body) < 16 << 10, "it need not repeat all that was sent"
    return problem


MALFORMED, INVALID = (400, "MALFORMED_REQUEST"), (400, "INVALID_REQUEST")
NOWHERE, NO_JOB = (404, "PATH_UNKNOWN"), (404, "JOB_NOT_FOUND")
NOT_JSON = (415, "CONTENT_TYPE_UNKNOWN")

# What a body says, of a job to start: status, reason, and the field where there is one.
BODIES = {
    "nothing": (b"", *INVALID, "kind"),
    "no kind": (b'{"input":{}}', *INVALID, "kind"),
    "a kind that is null": (b'{"kind":null}', *INVALID, "kind"),
    "an object without end": (b"{", *MALFORMED),
    "two objects": (b'{"kind":"a"}{"kind":"a"}', *MALFORMED),
    "something after it": (b'{"kind":"a"} x', *MALFORMED),
    "a comma too many": (b'{"kind":"a",}', *MALFORMED),
    "a comment": (b'{"kind":"a"/**/}', *MALFORMED),
    "quotes that are none": (b"{'kind':'a'}", *MALFORMED),
    "a byte order mark": (b'\xef\xbb\xbf{"kind":"a"}', *MALFORMED),
    "UTF-16": ('{"kind":"a"}'.encode("utf-16"), *MALFORMED),
    "Latin-1": (b'{"kind":"a","labels":{"a":"\xe9"}}', *MALFORMED),
    "overlong UTF-8": (b'{"kind":"a","labels":{"a":"\xc0\xaf"}}', *MALFORMED),
    "bytes that are no text in an input": (with_input(b'{"a":"\xff"}'), *MALFORMED),
    "a line end in a text": (with_input(b'{"a":"\n"}'), *MALFORMED),
    "NUL between": (b'{"kind"\0:"a"}', *MALFORMED),
    "a list": (b'[{"kind":"a"}]', *INVALID, "body"),
    "a text": (b'"kind"', *INVALID, "body"),
    "null": (b"null", *INVALID, "body"),
    "a kind that is a number": (b'{"kind":5}', *INVALID, "kind"),
    "half a surrogate": (b'{"kind":"a","labels":{"a":"\\ud800"}}', *INVALID, "labels.a"),
    "an unknown field": (b'{"kind":"a","colour":"red"}', *INVALID, "body"),
    "an unknown option": (b'{"kind":"a","options":{"colour":1}}', *INVALID, "options"),
    "an unknown field deep in the options": (b'{"kind":"a","options":{"retryPolicy":{"a":1}}}', *INVALID, "options.retryPolicy"),
    "a field in capitals": (b'{"Kind":"a"}', *INVALID, "body"),
    "a type beside it": (b'{"@type":"type.googleapis.com/a.B","kind":"a"}', *INVALID, "body"),
    "a thousand fields": (json.dumps({f"f{n}": 1 for n in range(1_000)}).encode(), *INVALID, "body"),
    "a field of 100,000 characters": (b'{"%s":1}' % (b"x" * 100_000), *INVALID, "body"),
    "the same field twice": (b'{"kind":"a","kind":"a"}', *INVALID, "body"),
    "the same field twice, once in escapes": (b'{"kind":"a","k\\u0069nd":"a"}', *INVALID, "body"),
    "the input twice": (b'{"kind":"a","input":{},"input":{}}', *INVALID, "body"),
    "the input and its text": (b'{"kind":"a","input":{},"inputJson":"{}"}', *INVALID, "input"),
    "both spellings of the text": (b'{"kind":"a","inputJson":"{}","input_json":"{}"}', *INVALID, "body"),
    "an input that is a list": (with_input(b"[]"), *INVALID, "input"),
    "an input that is a text": (with_input(b'"{}"'), *INVALID, "input"),
    "an input as text that is no text": (b'{"kind":"a","inputJson":{}}', *INVALID, "input"),
    "an input of 31 levels": (with_input(deep(31)), *INVALID, "input"),
    "an input of 10,000 levels": (with_input(deep(10_000)), *INVALID, "input"),
    "an input of a million levels": (with_input(b"[" * MIB + b"]" * MIB), *INVALID, "input"),
    "an unknown field of 100,000 levels": (b'{"kind":"a","a":%s}' % (b"[" * 100_000 + b"]" * 100_000), *INVALID, "body"),
    "labels of 10,000 levels": (b'{"kind":"a","labels":%s}' % deep(10_000), *INVALID, "labels.a"),
    "options of 10,000 levels": (
        b'{"kind":"a","options":%s}' % deep(10_000).replace(b'"a"', b'"retryPolicy"'), *INVALID, "options.retryPolicy",
    ),
    "labels that are a list": (b'{"kind":"a","labels":[]}', *INVALID, "labels"),
    "a label that is a number": (b'{"kind":"a","labels":{"a":1}}', *INVALID, "labels.a"),
    "half a priority": (b'{"kind":"a","options":{"priority":1.5}}', *INVALID, "options.priority"),
    "a priority beyond 32 bits": (b'{"kind":"a","options":{"priority":2147483648}}', *INVALID, "options.priority"),
    "a priority that is true": (b'{"kind":"a","options":{"priority":true}}', *INVALID, "options.priority"),
    "a duration without its unit": (b'{"kind":"a","options":{"retention":"1"}}', *INVALID, "options.retention"),
    "a duration that is a number": (b'{"kind":"a","options":{"retention":1}}', *INVALID, "options.retention"),
    "a duration beyond all": (b'{"kind":"a","options":{"retention":"999999999999999s"}}', *INVALID, "options.retention"),
    "a day without a time": (b'{"kind":"a","options":{"scheduleTime":"2026-11-28"}}', *INVALID, "options.scheduleTime"),
    "a day that is none": (b'{"kind":"a","options":{"scheduleTime":"2026-02-30T00:00:00Z"}}', *INVALID, "options.scheduleTime"),
    "no finite number": (
        b'{"kind":"a","options":{"retryPolicy":{"backoffCoefficient":"Infinity"}}}', *INVALID,
        "options.retryPolicy.backoffCoefficient",
    ),
}
BATCHES = {
    "no list": (b'{"requests":5}', *INVALID, "requests"),
    "a request that is a number": (b'{"requests":[{"kind":"a"},5]}', *INVALID, "requests[1]"),
    "a request that is null": (b'{"requests":[null]}', *INVALID, "requests[0]"),
    "an unknown field": (b'{"requests":[{"kind":"a"},{"kind":"a","colour":1}]}', *INVALID, "requests[1]"),
    "a field twice": (b'{"requests":[{"kind":"a"},{"kind":"a","kind":"a"}]}', *INVALID, "requests[1]"),
    "a bad label": (b'{"requests":[{"kind":"a"},{"kind":"a","labels":{"a":1}}]}', *INVALID, "requests[1].labels.a"),
    "no kind": (b'{"requests":[{"kind":"a"},{}]}', *INVALID, "requests[1].kind"),
    "an input that is no object": (b'{"requests":[{"kind":"a","input":5}]}', *INVALID, "requests[0].input"),
    "the list twice": (b'{"requests":[],"requests":[]}', *INVALID, "body"),
    "another name": (b'{"jobs":[]}', *INVALID, "body"),
    "a list alone": (b"[]", *INVALID, "body"),
    "10,000 levels": (b'{"requests":%s}' % (b"[" * 10_000 + b"]" * 10_000), *INVALID, "requests[0]"),
}
CANCELS = {
    "the id again": (json.dumps({"jobId": NO_SUCH_JOB}).encode(), *INVALID, "jobId"),
    "the id again, spelled otherwise": (json.dumps({"job_id": NO_SUCH_JOB}).encode(), *INVALID, "jobId"),
    "a list": (b"[]", *INVALID, "body"),
    "an unknown field": (b'{"why":"so"}', *INVALID, "body"),
    "a reason that is too long": (json.dumps({"reason": "r" * 256}).encode(), *INVALID, "reason"),
    "a grace that is too long": (b'{"gracePeriod":"601s"}', *INVALID, "gracePeriod"),
    "no such job": (b"{}", *NO_JOB),
}


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


# Addresses. What is not in the table of addresses is nowhere; nothing in a path is decoded, joined or forgiven.
PATHS = {
    NOWHERE: [
        *["/", "/v1", "/v1/", "/v1/jobs/", "//v1/jobs", "/v1//jobs", "/v1/jobs//events", "/v1/./jobs", "/v1/../v1/jobs"],
        *["/v1/jobs/../jobs", f"/v1/jobs/../jobs/{NO_SUCH_JOB}", f"{JOB}/..", f"{JOB}/../..", "/v1%2fjobs", "/v1%2Fjobs"],
        *["/%2e%2e/v1/jobs", "/v1/jobs%2f" + NO_SUCH_JOB, "/v1/jobs;a=b", "/v1/jobs%00", "/v1/jobs%20", "/v1\\jobs"],
        *["/V1/jobs", "/v1/Jobs", "/v1/jobs:Count", "/v1/jobs%3Acount", "/v1/jobs:", "/v1/jobs:fly", "/v1/jobs:cancel"],
        *[f"{JOB}%0d%0aa:b", f"{JOB}:", f"{JOB}:fly", f"{JOB}:Watch", f"{JOB}:batchStart", f"{JOB}:watch/", f"{JOB}:watch:cancel"],
        *[f"{JOB}/", f"{JOB}/events/", f"{JOB}/Events", f"{JOB}/events:watch", f"{JOB}/watch", "/v1/jobs/:watch"],
        *["/favicon.ico", "/etc/passwd", "/..//../etc/passwd", "/" + "a/" * 4_000, "http://localhost"],
        "/longhaul.v1.JobService",
    ],
    (*INVALID, "jobId"): [
        *[f"{JOBS}/{id}" for id in ["x", NO_SUCH_JOB[:-1], NO_SUCH_JOB + "0", NO_SUCH_JOB.replace("-", ""), f"{{{NO_SUCH_JOB}}}"]],
        *[f"{JOBS}/{id}" for id in ["..", ".", "%2e%2e", "%2e%2e%2f", "%c0%ae%c0%ae", "%ff", "%", "%zz", "%00", "..\\..\\etc"]],
        *[f"{JOB}{end}" for end in ["%00", ";a=b", "%20", "%2fevents", "%3Awatch", "%0d%0aa"]],
        *["/v1/jobs/%30" + NO_SUCH_JOB[1:], "/v1/jobs/" + "x" * 8_000, "/v1/jobs/x:watch", "/v1/jobs/x/events"],
        "http://localhost/v1/jobs/x",
    ],
    NO_JOB: [
        *[JOB, f"{JOB}?", f"{JOB}#there", f"{JOBS}/{NO_SUCH_JOB.upper()}", f"{JOB}:watch", f"{JOB}/events"],
        f"http://LOCALHOST{JOB}",
    ],
}


@pytest.mark.parametrize(
    "path, expected", [pytest.param(path, expected, id=path[:60]) for expected, paths in PATHS.items() for path in paths]
)
def test_a_path_leads_where_it_says_or_nowhere(server, path, expected):
    problem_of(ask(server, "GET", path), *expected)


BARE = {
    400: [
        *["v1/jobs", "", "/v1/jobs/ x", "/v1/jobs\t", "/v1/jobs/\0", "/v1/jobs/\x7f", "/v1/jobs/\xff", "/v1/jobs/\xc0\xae"],
        *["/v1/jobs?\xff", "/v1/jobs?pageSize= 1"],
    ],
    431: ["/v1/jobs/" + "x" * 17_000, "/v1/jobs?" + "x" * 17_000, "/" + "x" * 70_000],
}


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


METHODS = {
    JOBS: "POST, GET, HEAD",
    f"{JOBS}:batchStart": "POST",
    f"{JOBS}:count": "GET, HEAD",
    f"{JOBS}:watch": "GET, HEAD",
    JOB: "GET, DELETE, HEAD",
    f"{JOB}:watch": "GET, HEAD",
    f"{JOB}:cancel": "POST",
    f"{JOB}:retry": "POST",
    f"{JOB}/events": "GET, HEAD",
}


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


# Queries.
LIST_QUERIES = {
    "colour": ["colour=red"],
    "pagesize": ["pagesize=1"],
    "jobId": ["jobId=x"],
    "": ["=", "=1"],
    "pageSize": [
        *["pageSize=-1", "page_size=-2147483648", "pageSize=x", "pageSize=1.5", "pageSize=", "pageSize", "pageSize=99999999999"],
        *["pageSize=1&pageSize=2", "pageSize=1&page_size=1", "page%53ize=1&pageSize=1", "pageSize=%zz", "pageSize=1;view=FULL"],
    ],
    "pageToken": ["pageToken=x", "pageToken=a%00", "pageToken=1.ffffffff", "pageToken=" + "x" * 12_000, "pageToken=x&view=FULL"],
    "%ff": ["%ff=1", "pageToken=%ff"],
    "%c0%ae": ["%c0%ae=1", "pageToken=%c0%ae"],
    "view": ["view=full", "view=3", "view=", "view=FULL&view=FULL"],
    "view.x": ["view.x=1"],
    "filter": ["filter=x", "filter=", "filter={}"],
    "filter.states[0]": [
        *["filter.states=running", "filter.states=", "filter.states=STATE_UNSPECIFIED", "filter.states=77", "filter.states=2"],
        "filter.states=RUNNING,FAILED",
    ],
    "filter.states[1]": ["filter.states=RUNNING&filter.states=x"],
    "filter.kinds[0]": ["filter.kinds=", "filter.kinds=A", "filter.kinds=" + "k" * 65],
    "filter.labels": ["filter.labels=x"],
    'filter.labels[""]': ["filter.labels.=x"],
    "filter.labels.a": ["filter.labels.a=1&filter.labels.a=2", "filter.labels.a=1&filter.labels.%61=1"],
    "filter.createTimeMin": [
        *["filter.create_time_min=x", "filter.createTimeMin=2026-01-01", "filter.createTimeMin=2026-11-28T00:00:00+01:00"],
        "filter.createTimeMin=1795824000",
    ],
    "filter.createTimeMin.seconds": ["filter.createTimeMin.seconds=1"],
    "filter.x": ["filter.x=1"],
    "filter..x": ["filter..x=1"],
}
OTHER_QUERIES = {
    f"{JOB}/events": {
        "afterSequence": [f"afterSequence={n}" for n in ["-1", "1.5", "x", "", "9223372036854775808"]],
        "pageSize": ["pageSize=-1"],
        "jobId": [f"jobId={NO_SUCH_JOB}", f"job_id={NO_SUCH_JOB}"],
    },
    f"{JOB}:watch": {
        "afterSequence": [f"afterSequence={n}" for n in ["-1", "1.5", "x", "9223372036854775808"]],
        "minimumInterval": [f"minimumInterval={time}" for time in ["-1s", "1", "3601s", "s", "1m"]],
        "omitOutput": [f"omitOutput={value}" for value in ["yes", "1", "", "TRUE"]],
        "view": ["view=3"],
        "last-event-id": ["last-event-id=3"],
        "filter.states": ["filter.states=RUNNING"],
    },
    f"{JOBS}:watch": {
        "initialJobs": [f"initialJobs={n}" for n in [-1, 1001, "x"]],
        "filter.kinds[0]": ["filter.kinds=A"],
        "afterSequence": ["afterSequence=1"],
    },
    f"{JOBS}:count": {"kinds[0]": ["kinds=A"], "kind": ["kind=a"]},
    JOB: {"view": ["view=BASI"], "jobId": ["jobId=x"], "pageSize": ["pageSize=1"]},
}


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


# Headers.

BODY = b'{"kind":"a"}'


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


KEYS = {
    "none": ([""], b"{}"),
    "quotes around nothing": (['""'], b"{}"),
    "two": (["a", "b"], b"{}"),
    "the same twice": (["a", "a"], b"{}"),
    "not ASCII": (["\xe9"], b"{}"),
    "UTF-8": (["\xc3\xa9"], b"{}"),
    "another than the field": (["a"], b'{"requestId":"b"}'),
}


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
