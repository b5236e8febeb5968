"""The JSON API, method by method, held to what gRPC says of the same jobs.

Each answer is parsed into the contract's own message by protobuf's own parser, which knows every rule of canonical JSON and
refuses a field that the contract does not have.
"""

import http.client
import json
import subprocess

import grpc
import pytest
import web
from client import Job, history, running, simulate, status, watch
from conftest import WAIT, need_program, until
from google.protobuf import json_format
from http_jobs import JOBS, KINDS, finished, job_of, lease, parsed, waiting
from longhaul.v1 import job_service_pb2, worker_service_pb2
from web import ask, query

INPUT = (
    '{"big": 9007199254740993, "money":1.50,\t"tiny":-0.0,  "text":"\\u00e9\\/\\ud83d\\ude00 \U0001f600",'
    ' "list" :[ ], "nothing":null , "":{ "":{}}}'
)
"""Everything that a reader who parses it and writes it again would change."""


def begin(server, headers=(), **request):
    """Starts a job over JSON, and returns the answer."""
    return ask(server, "POST", JOBS, {"kind": "simulate", "input": {"seconds": 0.2}, **request}, headers)


# Starting.


def test_a_new_job_is_where_its_answer_says(server):
    answer = begin(server, labels={"team": "voice"}, options={"priority": 7, "startToCloseTimeout": "60s"})

    job = job_of(answer)
    assert answer.status == 201 and answer.header("location") == f"{JOBS}/{job.id}"
    assert answer.header("longhaul-repeated") is None
    assert (job.kind, dict(job.labels), job.options.priority) == ("simulate", {"team": "voice"}, 7)
    assert job.options.start_to_close_timeout.seconds == 60
    watch(server, job)
    found = ask(server, "GET", answer.header("location"))
    assert found.status == 200 and job_of(found) == status(server, job)


@pytest.mark.parametrize(
    "first, second",
    [
        ({"headers": [("idempotency-key", "a key")]}, {"headers": [("Idempotency-Key", '"a key"')]}),
        ({"headers": [("idempotency-key", '"b key"')]}, {"requestId": "b key"}),
        ({"request_id": "c key"}, {"headers": [("idempotency-key", "c key")], "requestId": "c key"}),
    ],
    ids=["quoted and not", "the header and the field", "both spellings and both at once"],
)
def test_a_repeat_has_the_first_ticket(server, first, second):
    new, repeat = begin(server, **first), begin(server, **second)

    assert (new.status, new.header("longhaul-repeated")) == (201, None)
    assert (repeat.status, repeat.header("longhaul-repeated")) == (200, "true")
    assert job_of(repeat).id == job_of(new).id and job_of(new).request_id
    assert repeat.header("location") == new.header("location")


def test_a_repeat_over_the_other_protocol_has_the_first_ticket(server):
    text = '{"seconds":0.2,  "prompt":"a"}'
    request = job_service_pb2.StartJobRequest(kind="simulate", input_json=text, request_id="either", labels={"a": "b"})
    body = f'{{"labels":{{"a":"b"}}, "input": {text} , "kind":"simulate"}}'.encode()

    over_json = ask(server, "POST", JOBS, body, [("idempotency-key", "either")])
    over_grpc, call = server.jobs.StartJob.with_call(request, timeout=WAIT)
    again = ask(server, "POST", JOBS, body, [("idempotency-key", "either")])

    assert (over_json.status, again.status) == (201, 200)
    assert job_of(over_json).id == over_grpc.id == job_of(again).id
    assert dict(call.initial_metadata())["longhaul-repeated"] == "true"


def test_a_trace_that_comes_with_a_job_goes_to_its_worker(server):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    kind = f"traced-{next(KINDS)}"
    ask(server, "POST", JOBS, {"kind": kind}, [("traceparent", trace), ("tracestate", "vendor=here")])

    assignment, _ = lease(server, kind)

    assert (assignment.traceparent, assignment.tracestate) == (trace, "vendor=here")


def test_a_batch_is_started_in_its_order(server):
    requests = [{"kind": f"batched-{n}", "input": {"n": n}, "labels": {"n": f"{n}"}} for n in range(4)]

    answer = ask(server, "POST", f"{JOBS}:batchStart", {"requests": requests})

    jobs = parsed(answer.body, job_service_pb2.BatchStartJobsResponse).jobs
    assert answer.status == 200 and [job.kind for job in jobs] == [f"batched-{n}" for n in range(4)]
    for job in jobs:
        truth = status(server, job)
        assert truth.input["n"] == int(job.kind[-1])
        truth.ClearField("input"), truth.ClearField("queue_position")
        assert job == truth
    for none in ({"requests": []}, {"requests": None}, {}, None):
        assert ask(server, "POST", f"{JOBS}:batchStart", none).json() == {"jobs": []}


@pytest.mark.parametrize("spelling", ["input", "inputJson", "input_json", "in a batch"])
def test_an_input_and_a_result_are_byte_for_byte_what_was_sent(server, spelling):
    kind, result = f"bytes-{next(KINDS)}", INPUT.replace("big", "bigger")
    text = json.dumps(INPUT) if "son" in spelling else INPUT
    name = spelling if "son" in spelling else "input"
    one = f'{{"{name}": {text}, "kind": "{kind}"}}'
    if spelling == "in a batch":
        answer = ask(server, "POST", f"{JOBS}:batchStart", f'{{"requests": [ {one} ]}}'.encode())
        job = parsed(answer.body, job_service_pb2.BatchStartJobsResponse).jobs[0]
    else:
        job = job_of(ask(server, "POST", JOBS, one.encode()))

    assignment, workers = lease(server, kind)
    complete = worker_service_pb2.CompleteJobRequest(lease_token=assignment.lease_token, result_json=result)
    workers.CompleteJob(complete, timeout=WAIT)

    assert assignment.input_json == INPUT, "what its worker got"
    shown = ask(server, "GET", f"{JOBS}/{job.id}")
    assert f'"input":{INPUT}'.encode() in shown.body and f'"result":{result}'.encode() in shown.body
    assert job_of(shown) == status(server, job)
    listed = ask(server, "GET", f"{JOBS}?{query({'filter.kinds': kind, 'view': 'FULL'})}")
    assert f'"input":{INPUT}'.encode() in listed.body and f'"result":{result}'.encode() in listed.body
    told = web.all_events(server, f"{JOBS}/{job.id}:watch?afterSequence=0&view=FULL")
    assert f'"input":{INPUT}' in told[0].data and all(f'"result":{result}' in told[n].data for n in (0, -1))
    events = ask(server, "GET", f"{JOBS}/{job.id}/events")
    assert f'"result":{result}'.encode() in events.body


@pytest.mark.parametrize("result", ["null", "0.10", '"\\u0041"', "[1 , 2]", "false"])
def test_a_result_may_be_any_json(server, result):
    kind = f"results-{next(KINDS)}"
    job = job_of(ask(server, "POST", JOBS, {"kind": kind}))

    assignment, workers = lease(server, kind)
    complete = worker_service_pb2.CompleteJobRequest(lease_token=assignment.lease_token, result_json=result)
    workers.CompleteJob(complete, timeout=WAIT)

    shown = ask(server, "GET", f"{JOBS}/{job.id}")
    assert f'"result":{result}'.encode() in shown.body and job_of(shown) == status(server, job)


# Reading.


@pytest.mark.parametrize("view", [None, "BASIC", "FULL", "VIEW_UNSPECIFIED"])
def test_a_job_is_shown_as_over_grpc(server, view):
    job = finished(server, labels={"ü": "/"}, options={"retention": "3600.5s"})
    target = f"{JOBS}/{job.id}" + (f"?view={view}" if view else "")
    truth = server.jobs.GetStatus(job_service_pb2.GetStatusRequest(job_id=job.id, view=view), timeout=WAIT)

    assert job_of(ask(server, "GET", target)) == truth
    assert truth.HasField("input") == (view != "BASIC")


def test_every_state_is_shown_as_over_grpc(server):
    later = {"options": {"scheduleTime": "2126-11-28T13:00:00.25+02:00"}}
    ended = [
        finished(server),
        finished(server, options={"retryPolicy": {"maximumAttempts": 1}}, input={"chaos": {"error": 1}}),
        waiting(server),
        job_of(begin(server, **later)),
        waiting(server, options={"schedule_to_start_timeout": {"nanos": 1000}}),
    ]
    until(lambda: status(server, ended[-1]).state == Job.EXPIRED, "EXPIRED")

    seen = []
    for job in ended:
        over_json = ask(server, "GET", f"{JOBS}/{job.id}")
        assert job_of(over_json) == status(server, job)
        seen.append(over_json.json()["state"])

    assert seen == ["SUCCEEDED", "FAILED", "PENDING", "SCHEDULED", "EXPIRED"]


def pages(server, target, response, next_field, next_parameter, **parameters):
    """Every page of a list to its end."""
    while True:
        answer = ask(server, "GET", f"{target}?{query(parameters)}")
        assert answer.status == 200, answer.body
        page = parsed(answer.body, response)
        yield page
        if not getattr(page, next_field):
            assert next_parameter not in answer.body.decode()
            return
        parameters[next_parameter] = getattr(page, next_field)


@pytest.fixture(scope="module")
def listed(server):
    """Jobs of two kinds, in several states, with labels."""
    jobs = [waiting(server, labels={"order": str(n % 3), "my.team": "a b&c=ü"}) for n in range(7)]
    jobs += [finished(server, labels={"order": str(n), "my.team": "d+e"}) for n in range(3)]
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=jobs[0].id), timeout=WAIT)
    return jobs


FILTERS = {
    "all": {},
    "one state": {"filter.states": "CANCELLED"},
    "two states": {"filter.states": ["PENDING", "SUCCEEDED"]},
    "kinds": {"filter.kinds": ["simulate", "nobody-does-this"]},
    "a label": {"filter.labels.order": "1"},
    "a label with a dot, and text of all sorts": {"filter.labels.my.team": "a b&c=ü"},
    "two labels": {"filter.labels.order": "0", "filter.labels.my.team": "d+e"},
    "from a time on": {"filter.createTimeMin": 4},
    "up to a time": {"filter.create_time_max": 4},
    "between times, of a kind and a label": {
        "filter.createTimeMin": 1, "filter.createTimeMax": 6, "filter.kinds": "nobody-does-this", "filter.labels.order": "2",
    },
    "nothing": {"filter.kinds": "there-is-none"},
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [2, 1_000])
def test_a_list_is_the_one_that_grpc_has(server, listed, name, size):
    parameters = dict(FILTERS[name])
    filter = {"labels": {}}
    for field, value in list(parameters.items()):
        field = field.removeprefix("filter.")
        if isinstance(value, int):
            parameters["filter." + field] = value = listed[value].create_time.ToJsonString()
        if field.startswith("labels."):
            filter["labels"][field.removeprefix("labels.")] = value
        elif field in ("states", "kinds"):
            filter[field] = value if isinstance(value, list) else [value]
        else:
            filter[field] = value
    request = json_format.ParseDict({"filter": filter, "pageSize": 1000, "view": "FULL"}, job_service_pb2.ListJobsRequest())
    truth = server.jobs.ListJobs(request, timeout=WAIT).jobs

    parameters |= {"pageSize": size, "view": "FULL"}
    found = list(pages(server, JOBS, job_service_pb2.ListJobsResponse, "next_page_token", "pageToken", **parameters))

    assert [job for page in found for job in page.jobs] == list(truth)
    assert all(len(page.jobs) <= size for page in found)
    assert bool(truth) == (name != "nothing")


def test_counts_are_those_of_grpc(server, listed):
    for kinds in ([], ["simulate"], ["simulate", "nobody-does-this"], ["there-is-none"]):
        truth = server.jobs.CountJobs(job_service_pb2.CountJobsRequest(kinds=kinds), timeout=WAIT)

        answer = ask(server, "GET", f"{JOBS}:count?{query({'kinds': kinds})}")

        assert answer.status == 200 and parsed(answer.body, job_service_pb2.CountJobsResponse) == truth


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_a_history_is_that_of_grpc_page_by_page(server, size):
    job = finished(server, input={"prompt": "one two three"})

    found = pages(
        server, f"{JOBS}/{job.id}/events", job_service_pb2.ListJobEventsResponse, "next_after_sequence", "afterSequence",
        pageSize=size,
    )

    assert [event for page in found for event in page.events] == history(server, job)


def test_a_head_has_the_headers_of_the_answer_and_no_body(server):
    job = finished(server)

    whole, head = ask(server, "GET", f"{JOBS}/{job.id}"), ask(server, "HEAD", f"{JOBS}/{job.id}")

    assert head.status == 200 and head.body == b""
    assert {name: head.header(name) for name in ("content-type", "content-length")} == {
        "content-type": "application/json", "content-length": str(len(whole.body)),
    }
    assert ask(server, "HEAD", f"{JOBS}/x").status == 400
    assert ask(server, "HEAD", f"{JOBS}:watch").status == 200, "it does not wait for the end of what it leaves out"


def test_a_head_is_one_over_http2_too(server):
    """Where nothing but the server keeps the body back."""
    curl = need_program("curl")
    job = finished(server)

    for target, status_line in [(f"{JOBS}/{job.id}", "200"), (f"{JOBS}/x", "400"), (f"{JOBS}:watch", "200")]:
        command = [curl, "--http2-prior-knowledge", "-sS", "-I", "--max-time", "10", f"http://{server.address}{target}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["HTTP/2", status_line]), done.stderr


# Changing.


def test_a_cancel_over_json_is_one(server):
    job = server.jobs.StartJob(simulate({"seconds": 60}), timeout=WAIT)
    running(server, job)

    answer = ask(server, "POST", f"{JOBS}/{job.id}:cancel", {"reason": "enough ü", "gracePeriod": "2.5s"})

    assert answer.status == 200 and job_of(answer).state in (Job.CANCELLING, Job.CANCELLED)
    asked = next(m.state_change for m in watch(server, job) if m.state_change.state == Job.CANCELLING)
    assert asked.message == "enough ü"
    again = ask(server, "POST", f"{JOBS}/{job.id}:cancel")
    assert again.status == 200 and job_of(again).state == Job.CANCELLED, "and it needs no body"


def test_a_retry_over_json_is_a_new_job(server):
    job = finished(server, labels={"a": "b"})
    key = [("idempotency-key", f'"again {job.id}"')]

    first = ask(server, "POST", f"{JOBS}/{job.id}:retry", {}, key)
    again = ask(server, "POST", f"{JOBS}/{job.id}:retry", {"requestId": f"again {job.id}"})
    request = job_service_pb2.RetryJobRequest(job_id=job.id, request_id=f"again {job.id}")
    over_grpc = server.jobs.RetryJob(request, timeout=WAIT)

    retry = job_of(first)
    assert (first.status, again.status) == (201, 200) and again.header("longhaul-repeated") == "true"
    assert retry.retry_of == job.id and first.header("location") == f"{JOBS}/{retry.id}"
    assert retry.id == job_of(again).id == over_grpc.id != job.id
    other = ask(server, "POST", f"{JOBS}/{job.id}:retry")
    assert other.status == 201 and job_of(other).id not in (job.id, retry.id)


def test_a_job_that_was_deleted_is_gone(server):
    job = finished(server)

    answer = ask(server, "DELETE", f"{JOBS}/{job.id}")

    assert (answer.status, answer.body) == (204, b"")
    gets, posts = ["", "/events", ":watch"], [":cancel", ":retry"]
    for method, suffix in [("DELETE", ""), *(("GET", get) for get in gets), *(("POST", post) for post in posts)]:
        gone = ask(server, method, f"{JOBS}/{job.id}{suffix}")
        assert (gone.status, gone.problem()["reason"]) == (404, "JOB_NOT_FOUND")
    with pytest.raises(grpc.RpcError) as raised:
        status(server, job)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_connection_serves_one_request_after_the_other(server):
    connection = http.client.HTTPConnection(server.address, timeout=WAIT)
    connection.connect()
    first = connection.sock

    requests = [("GET", JOBS), ("GET", "/nowhere"), ("POST", JOBS), ("DELETE", f"{JOBS}/x"), ("GET", f"{JOBS}:count")]
    for method, target in requests:
        connection.request(method, target, headers={"host": "localhost"})
        connection.getresponse().read()
        assert connection.sock is first, f"{method} {target} has ended the connection"
    connection.close()
