"""The hackathon's routes: its own commands as its README has them, and its words for every state."""

import http.client
import json
import socket
import subprocess
from datetime import datetime

import pytest
from client import Job, start, status
from conftest import WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2, worker_service_pb2, worker_service_pb2_grpc

NO_SUCH_JOB = "0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
FIELDS = {"jobId", "status", "progress", "result", "error", "createdAt", "updatedAt", "duration"}


def call(server, method, path, body=None, **headers):
    """Makes a call, and returns the answer with its text in `text`."""
    connection = http.client.HTTPConnection(server.address, timeout=WAIT)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        headers.setdefault("content-type", "application/json")
        body = body if isinstance(body, (str, bytes)) else json.dumps(body)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


def told(server, method, path, body=None, **headers):
    """What a call that succeeds is told."""
    answer = call(server, method, path, body, **headers)
    assert answer.status in (200, 201), f"{answer.status}: {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.text)


def shown(server, job_id):
    """The job in the hackathon's words."""
    return told(server, "GET", f"/ai/status/{job_id}")


def page(server, job_id):
    """The page of a job."""
    return call(server, "GET", f"/jobs/{job_id}", accept=BROWSER)


def ended(server, job_id):
    """The job, once it has ended."""
    return until(lambda: (now := shown(server, job_id))["status"] not in ("pending", "processing") and now, "the end")


def leased(server, job):
    """Lets a worker have a job, which runs then until somebody says otherwise, and returns the worker and its lease."""
    workers = worker_service_pb2_grpc.WorkerServiceStub(server.channel)
    wanted = {"worker_id": "holder", "kinds": [job.kind], "wait": "10s"}
    answer = workers.LeaseJobs(json_format.ParseDict(wanted, worker_service_pb2.LeaseJobsRequest()), timeout=WAIT)
    [assignment] = answer.assignments
    report = {"reports": [{"lease_token": assignment.lease_token}]}
    workers.Heartbeat(json_format.ParseDict(report, worker_service_pb2.HeartbeatRequest()), timeout=WAIT)
    until(lambda: status(server, job).state == Job.RUNNING, "RUNNING")
    return workers, assignment.lease_token


def curl(*arguments, folder):
    """Runs the real curl."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True, timeout=WAIT, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_hackathon_work_unchanged(start_server, tmp_path):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 3000))
    start_server(listen="127.0.0.1:3000")

    command = 'curl -X POST http://localhost:3000/ai/start -H "Content-Type: application/json" -d \'{"prompt": "Hello Judges"}\''
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=WAIT, cwd=tmp_path)

    started = json.loads(done.stdout)
    assert started.keys() == {"jobId", "status", "message"} and started["status"] == "pending"
    address = f"http://localhost:3000/ai/status/{started['jobId']}"
    now = until(lambda: (now := json.loads(curl(address, folder=tmp_path)))["status"] == "completed" and now, "completed")
    assert now["result"] == {"text": "Processed: Hello Judges", "seconds": 6.0}
    assert now["progress"] == {"percent": 100, "message": "Done"}


def test_a_start_is_a_job_of_the_kind_that_is_set(start_server):
    server = start_server("--ai-kind", "nobody.runs-it")
    wanted = {"prompt": "Hello", "options": {"temperature": 0.7, "maxTokens": 5}}

    answer = call(server, "POST", "/ai/start", wanted)

    assert answer.status == 201, answer.text
    job_id = json.loads(answer.text)["jobId"]
    assert answer.headers["location"] == f"/ai/status/{job_id}"
    job = status(server, Job(id=job_id))
    assert job.kind == "nobody.runs-it"
    assert json_format.MessageToDict(job.input) == {"prompt": "Hello", "temperature": 0.7, "max_tokens": 5}


def test_the_options_reach_the_job(server):
    wanted = {"prompt": "one two three", "options": {"temperature": 2, "maxTokens": 2}}

    job_id = told(server, "POST", "/ai/start", wanted)["jobId"]

    assert ended(server, job_id)["result"]["text"] == "Processed: one two "


def test_a_repeated_start_is_one_job(server):
    first = call(server, "POST", "/ai/start", {"prompt": "once"}, idempotency_key='"ai-once"')
    second = call(server, "POST", "/ai/start", {"prompt": "once"}, idempotency_key="ai-once")
    other = call(server, "POST", "/ai/start", {"prompt": "twice"}, idempotency_key="ai-once")

    assert (first.status, second.status, other.status) == (201, 200, 409)
    assert json.loads(first.text)["jobId"] == json.loads(second.text)["jobId"]
    assert second.headers["longhaul-repeated"] == "true" and first.headers["longhaul-repeated"] is None


def scheduled(server):
    return start(server, options={"schedule_time": "2100-01-01T00:00:00Z"}), Job.SCHEDULED


def pending(server):
    return start(server, kind="nobody"), Job.PENDING


def running(server):
    return start(server, {"seconds": 600}), Job.RUNNING


def retrying(server):
    retry = {"initial_interval": "3600s", "maximum_interval": "3600s"}
    return start(server, {"seconds": 0, "chaos": {"error": 1}}, {"retry_policy": retry}), Job.RETRYING


def cancelling(server):
    job = start(server, kind="held")
    leased(server, job)
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id, grace_period={"seconds": 600}), timeout=WAIT)
    return job, Job.CANCELLING


def succeeded(server):
    return start(server, {"seconds": 0}), Job.SUCCEEDED


def failed(server):
    return start(server, {"seconds": 0, "chaos": {"error": 1}}, {"retry_policy": {"maximum_attempts": 1}}), Job.FAILED


def cancelled(server):
    job = start(server, kind="nobody")
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=WAIT)
    return job, Job.CANCELLED


def expired(server):
    return start(server, options={"schedule_to_start_timeout": "0.05s"}, kind="nobody"), Job.EXPIRED


@pytest.mark.parametrize(
    "make, word, error",
    [
        (scheduled, "pending", None),
        (pending, "pending", None),
        (retrying, "pending", None),
        (running, "processing", None),
        (cancelling, "processing", None),
        (succeeded, "completed", None),
        (failed, "failed", "HANDLER_ERROR: a simulated error"),
        (expired, "failed", "START_TIMEOUT: no worker began in time"),
        (cancelled, "cancelled", None),
    ],
)
def test_every_state_has_its_word(server, make, word, error):
    job, state = make(server)
    until(lambda: status(server, job).state == state, Job.State.Name(state))

    now = shown(server, job.id)

    assert now.keys() == FIELDS
    assert (now["jobId"], now["status"], now["error"]) == (job.id, word, error)
    assert (now["result"] is not None) == (state == Job.SUCCEEDED)
    assert type(now["progress"]["percent"]) is int and 0 <= now["progress"]["percent"] <= 100
    assert (now["progress"]["percent"] == 100) == (state == Job.SUCCEEDED)
    assert type(now["duration"]) is int and now["duration"] >= 0
    assert now["createdAt"].endswith("Z") and now["updatedAt"].endswith("Z")
    assert datetime.fromisoformat(now["createdAt"]) <= datetime.fromisoformat(now["updatedAt"])
    refreshes = 'http-equiv="refresh"' in page(server, job.id).text
    assert refreshes == (word in ("pending", "processing"))
    listed = told(server, "GET", f"/ai/jobs?status={word}")["jobs"]
    assert job.id in [one["jobId"] for one in listed] and {one["status"] for one in listed} == {word}
    # What goes on would hold up the server's stop.
    told(server, "POST", "/ai/cancel", {"jobId": job.id})


def test_a_final_state_is_final(server):
    job, _ = succeeded(server)
    before = ended(server, job.id)

    answers = [told(server, "POST", "/ai/cancel", {"jobId": job.id}) for _ in range(2)]

    for answer in answers:
        assert answer.keys() == {"jobId", "status", "message"}
        assert (answer["jobId"], answer["status"]) == (job.id, "completed")
    assert shown(server, job.id) == before


def test_a_job_is_cancelled_once(server):
    job, _ = pending(server)

    first = told(server, "POST", "/ai/cancel", {"jobId": job.id})
    before = shown(server, job.id)
    second = told(server, "POST", "/ai/cancel", {"jobId": job.id})

    assert first["status"] == second["status"] == before["status"] == "cancelled"
    assert shown(server, job.id) == before


def test_what_is_not_shown_takes_no_room_on_a_page(start_server):
    server = start_server("--ai-kind", "nobody")
    jobs = [told(server, "POST", "/ai/start", {"prompt": "x" * 700_000})["jobId"] for _ in range(4)]

    listed = told(server, "GET", "/ai/jobs")

    assert [job["jobId"] for job in listed["jobs"]] == jobs[::-1] and "nextPageToken" not in listed


def test_a_list_is_read_page_by_page(start_server):
    server = start_server()
    jobs = [start(server, kind="nobody").id for _ in range(5)]

    pages, token = [], ""
    while token is not None:
        answer = told(server, "GET", "/ai/jobs?limit=2" + (f"&pageToken={token}" if token else ""))
        assert all(job.keys() == FIELDS for job in answer["jobs"])
        pages.append([job["jobId"] for job in answer["jobs"]])
        token = answer.get("nextPageToken")

    newest = jobs[::-1]
    assert [job for page in pages for job in page] == newest and pages[0] == newest[:2]
    other = call(server, "GET", "/ai/jobs?status=failed&pageToken=" + told(server, "GET", "/ai/jobs?limit=1")["nextPageToken"])
    assert other.status == 400 and json.loads(other.text)["fields"][0]["field"] == "pageToken"


BAD = {
    "no body": ("POST", "/ai/start", "", {}, 400, "INVALID_REQUEST", "prompt"),
    "no prompt": ("POST", "/ai/start", "{}", {}, 400, "INVALID_REQUEST", "prompt"),
    "a blank prompt": ("POST", "/ai/start", '{"prompt": " "}', {}, 400, "INVALID_REQUEST", "prompt"),
    "a number": ("POST", "/ai/start", '{"prompt": 7}', {}, 400, "INVALID_REQUEST", "prompt"),
    "a long prompt": ("POST", "/ai/start", json.dumps({"prompt": "x" * (1 << 20)}), {}, 400, "INVALID_REQUEST", "prompt"),
    "a hot model": (
        "POST", "/ai/start", '{"prompt": "x", "options": {"temperature": 2.1}}', {}, 400, "INVALID_REQUEST", "options.temperature",
    ),
    "no tokens": (
        "POST", "/ai/start", '{"prompt": "x", "options": {"maxTokens": 0}}', {}, 400, "INVALID_REQUEST", "options.maxTokens",
    ),
    "half a token": (
        "POST", "/ai/start", '{"prompt": "x", "options": {"maxTokens": 0.5}}', {}, 400, "INVALID_REQUEST", "options.maxTokens",
    ),
    "another option": (
        "POST", "/ai/start", '{"prompt": "x", "options": {"topK": 1}}', {}, 400, "INVALID_REQUEST", "options.topK",
    ),
    "another field": ("POST", "/ai/start", '{"prompt": "x", "id": 1}', {}, 400, "INVALID_REQUEST", "id"),
    "a list": ("POST", "/ai/start", '["x"]', {}, 400, "INVALID_REQUEST", "body"),
    "no JSON": ("POST", "/ai/start", '{"prompt"', {}, 400, "MALFORMED_REQUEST", None),
    "two bodies": ("POST", "/ai/start", "{} {}", {}, 400, "MALFORMED_REQUEST", None),
    "a query": ("POST", "/ai/start?prompt=x", '{"prompt": "x"}', {}, 400, "MALFORMED_REQUEST", None),
    "a form": ("POST", "/ai/start", "prompt=x", {"content_type": "application/x-www-form-urlencoded"}, 415, "CONTENT_TYPE_UNKNOWN", None),
    "much": ("POST", "/ai/start", "{", {"content_length": str((4 << 20) + 1)}, 413, "MESSAGE_TOO_LARGE", None),
    "no method": ("GET", "/ai/start", None, {}, 405, "METHOD_UNKNOWN", None),
    "no id": ("GET", "/ai/status/7", None, {}, 400, "INVALID_REQUEST", "jobId"),
    "no job": ("GET", f"/ai/status/{NO_SUCH_JOB}", None, {}, 404, "JOB_NOT_FOUND", None),
    "no page": ("GET", f"/jobs/{NO_SUCH_JOB}", None, {}, 404, "JOB_NOT_FOUND", None),
    "a status's query": ("GET", f"/ai/status/{NO_SUCH_JOB}?view=x", None, {}, 400, "INVALID_REQUEST", "view"),
    "nowhere": ("GET", "/ai/", None, {}, 404, "PATH_UNKNOWN", None),
    "no page at all": ("GET", "/ai/jobs?limit=0", None, {}, 400, "INVALID_REQUEST", "limit"),
    "a large page": ("GET", "/ai/jobs?limit=101", None, {}, 400, "INVALID_REQUEST", "limit"),
    "a state": ("GET", "/ai/jobs?status=RUNNING", None, {}, 400, "INVALID_REQUEST", "status"),
    "a token": ("GET", "/ai/jobs?pageToken=x", None, {}, 400, "INVALID_REQUEST", "pageToken"),
    "a parameter": ("GET", "/ai/jobs?page=2", None, {}, 400, "INVALID_REQUEST", "page"),
    "nothing to cancel": ("POST", "/ai/cancel", "{}", {}, 400, "INVALID_REQUEST", "jobId"),
    "no job to cancel": ("POST", "/ai/cancel", {"jobId": NO_SUCH_JOB}, {}, 404, "JOB_NOT_FOUND", None),
    "a reason": ("POST", "/ai/cancel", {"jobId": NO_SUCH_JOB, "reason": "x"}, {}, 400, "INVALID_REQUEST", "reason"),
}


@pytest.mark.parametrize("method, path, body, headers, code, reason, field", BAD.values(), ids=BAD)
def test_a_bad_request_is_refused(server, method, path, body, headers, code, reason, field):
    answer = call(server, method, path, body, **headers)

    assert answer.status == code, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.text)
    assert (problem["status"], problem["reason"]) == (code, reason)
    assert [one["field"] for one in problem.get("fields", [])] == ([field] if field else []), problem
    assert (answer.headers["allow"] is not None) == (code == 405)


def test_a_method_that_an_address_does_not_have_is_told_those_that_it_has(server):
    allowed = {
        path: call(server, "PUT", path).headers["allow"]
        for path in ("/ai/start", "/ai/cancel", "/ai/jobs", "/ai/status/7", "/jobs/7")
    }

    read, write = "GET, HEAD", "POST"
    assert allowed == {
        "/ai/start": write, "/ai/cancel": write, "/ai/jobs": read, "/ai/status/7": read, "/jobs/7": read,
    }


@pytest.mark.parametrize(
    "accept, is_page",
    [(BROWSER, True), ("text/html", True), ("*/*", False), ("application/json", False), (None, False),
     ("text/html;q=0.5, application/json", False)],
)
def test_a_browser_is_sent_to_the_page(server, accept, is_page):
    job, _ = pending(server)

    answer = call(server, "GET", f"/ai/status/{job.id}", **({"accept": accept} if accept else {}))

    assert answer.headers["vary"].lower() == "accept"
    assert answer.status == (303 if is_page else 200)
    assert answer.headers["location"] == (f"/jobs/{job.id}" if is_page else None)
    assert answer.headers["cache-control"] == "no-store"


def test_the_routes_are_in_the_document(server):
    paths = told(server, "GET", "/openapi.json")["paths"]

    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert described >= {
        "POST /ai/start", "GET /ai/status/{jobId}", "GET /ai/jobs", "POST /ai/cancel",
    }
