"""The pages without a script, as a browser reads them: what they say, what their forms do, and what they let nobody do."""

import html.parser
import json
import re
import urllib.parse

import pytest
from client import Job, history, start, status
from conftest import WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2, worker_service_pb2
from test_ai import BROWSER, HOSTILE, NO_SUCH_JOB, call, ended, leased, page

FORM = "application/x-www-form-urlencoded"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


class Page(html.parser.HTMLParser):
    """A page as a browser reads it: its tags, its attributes, its text, and the text of each element that has an id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.ids = [], [], "", {}
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.attributes += attributes
        if "id" in attributes:
            self.ids[attributes["id"]] = ""
        if tag not in ("meta", "link", "input"):
            self.open.append((tag, attributes.get("id")))

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"{tag} ends inside of {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data
        for _, inside in self.open:
            if inside:
                self.ids[inside] += data

    def form(self, action):
        """Whether there is a form to this address."""
        return any(tag == "form" and attributes["action"] == action for tag, attributes in self.tags)


def read(server, job_id):
    return Page(page(server, job_id).text)


def token(server, job_id):
    """What a page has in its forms."""
    return re.search(r'name="token" value="([0-9a-f]{32})"', page(server, job_id).text).group(1)


def send(server, address, fields, accept=BROWSER, **headers):
    """Sends a form."""
    return call(server, "POST", address, urllib.parse.urlencode(fields), content_type=FORM, accept=accept, **headers)


@pytest.fixture
def waiting(server):
    """A job that nobody runs, and the token of its page."""
    job = start(server, kind="nobody-does-this")
    return job, token(server, job.id)


def test_what_a_job_says_is_no_part_of_its_page(server):
    job = start(server, kind="hostile")
    workers, lease = leased(server, job)
    report = {"reports": [{"lease_token": lease, "progress": {"stage": HOSTILE}}]}
    workers.Heartbeat(json_format.ParseDict(report, worker_service_pb2.HeartbeatRequest()), timeout=WAIT)
    output = {"lease_token": lease, "data": HOSTILE.encode(), "logs": [{"level": "WARN", "message": HOSTILE}]}
    workers.AppendOutput(worker_service_pb2.AppendOutputRequest(**output), timeout=WAIT)
    other = worker_service_pb2.AppendOutputRequest(lease_token=lease, channel="reasoning", data=HOSTILE.encode())
    workers.AppendOutput(other, timeout=WAIT)
    result = {"lease_token": lease, "result": HOSTILE}
    workers.CompleteJob(json_format.ParseDict(result, worker_service_pb2.CompleteJobRequest()), timeout=WAIT)

    answer = page(server, job.id)

    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    shown = Page(answer.text)
    assert shown.open == [], "every element ends"
    assert shown.ids["stage"] == HOSTILE and shown.ids["output"].strip() == HOSTILE and HOSTILE in shown.ids["log"]
    assert HOSTILE in shown.ids["channels"] and HOSTILE in shown.ids["timeline"]
    assert shown.ids["result"].strip() == json.dumps(HOSTILE)
    scripts = [attributes for tag, attributes in shown.tags if tag == "script"]
    [script] = scripts
    assert script["type"] == "module" and re.fullmatch(r"/assets/job\.js\?v=[0-9a-f]{16}", script["src"])
    assert not {tag for tag, _ in shown.tags} & {"img", "iframe", "object", "style"}
    assert not {name for name in shown.attributes if name.startswith("on") or name == "style"}
    for name, value in {
        "content-security-policy": POLICY, "x-frame-options": "DENY", "referrer-policy": "same-origin",
        "cache-control": "no-store", "x-content-type-options": "nosniff",
    }.items():
        assert answer.headers[name] == value


def test_a_page_says_what_the_server_knows(server):
    job = start(server, {"prompt": "to be or not to be", "seconds": 0.2, "seed": 1, "chaos": {"error": 0.5}})
    assert ended(server, job.id)["status"] == "completed"

    shown, now = read(server, job.id), status(server, job)

    assert shown.ids["output"].strip() == "to be or not to be", "what a failed attempt said is not there"
    assert json.loads(shown.ids["result"]) == json_format.MessageToDict(now.result)
    assert json.loads(shown.ids["input"]) == json_format.MessageToDict(now.input)
    assert shown.ids["state"] == "Succeeded" and shown.ids["percent"] == "100 %"
    assert shown.ids["attempt"] == f"{now.attempt} of at most {now.options.retry_policy.maximum_attempts}"
    steps = [event for event in history(server, job) if event.WhichOneof("event") in ("state_change", "stage")]
    told = [attributes for tag, attributes in shown.tags if tag == "li" and "data-event" in attributes]
    assert [(int(one["data-sequence"]), int(one["data-attempt"])) for one in told] == [
        (event.sequence, event.attempt) for event in steps
    ]
    assert not any(tag == "meta" and attributes.get("http-equiv") for tag, attributes in shown.tags), "it has ended"


def test_a_page_has_the_end_of_a_long_output(server):
    prompt = " ".join(f"word-{number}" for number in range(20_000))
    job = start(server, {"prompt": prompt, "seconds": 0, "steps": 2000})
    ended(server, job.id)

    shown = read(server, job.id)

    assert f"The last {64 << 10} of {len(prompt)} bytes" in shown.text
    assert shown.ids["output"] == "\n" + prompt[-(64 << 10):]


def test_why_a_job_waits_is_said(server, waiting):
    job, _ = waiting

    assert "No worker serves the kind nobody-does-this" in read(server, job.id).ids["queue"]


def test_a_kind_whose_workers_are_all_busy_is_served(start_server):
    server = start_server()
    jobs = [start(server, {"seconds": 60}) for _ in range(5)]
    waiting = lambda: [job for job in jobs if status(server, job).state == Job.PENDING]
    until(lambda: len(waiting()) == 1, "four that run")
    [waits] = waiting()

    shown, overview = read(server, waits.id), json.loads(call(server, "GET", "/overview").text)

    assert "No worker serves" not in shown.ids["queue"] and overview["counts"]["unserved"] == []
    assert "No worker serves" not in Page(call(server, "GET", "/", accept=BROWSER).text).text
    for job in jobs:
        server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=WAIT)


def test_what_a_page_loads_is_bounded_however_many_kinds_there_are(start_server):
    server = start_server()
    kinds = [f"{number:060}" for number in range(3_000)]
    for begin in range(0, len(kinds), 1_000):
        batch = [job_service_pb2.StartJobRequest(kind=kind) for kind in kinds[begin : begin + 1_000]]
        server.jobs.BatchStartJobs(job_service_pb2.BatchStartJobsRequest(requests=batch), timeout=WAIT)
    busy = [server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="busiest"), timeout=WAIT) for _ in range(2)]

    # It is made once a second, so the first may be from before.
    overview = lambda: json.loads(call(server, "GET", "/overview").text)
    until(lambda: overview()["counts"]["all"].get("PENDING") == len(kinds) + len(busy), "all of them are counted")
    answer = call(server, "GET", "/overview").text

    counts = json.loads(answer)["counts"]
    assert len(answer) < 64 << 10
    assert (len(counts["kinds"]), counts["moreKinds"]) == (50, len(kinds) - 49)
    assert {"kind": "busiest", "jobs": {"PENDING": 2}} in counts["kinds"]
    assert (len(counts["unserved"]), counts["moreUnserved"]) == (50, len(kinds) - 49)
    shown = Page(call(server, "GET", "/", accept=BROWSER).text).text
    assert "No worker serves the kind busiest: 2 waiting." in shown and "So it is with 2996 more kinds." in shown


def test_an_error_of_a_browser_is_a_page(server):
    for path in (f"/jobs/{NO_SUCH_JOB}", f"/ai/status/{NO_SUCH_JOB}"):
        answer = call(server, "GET", path, accept=BROWSER)

        assert answer.status == 404 and answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "there is no such job" in Page(answer.text).text and "refresh" not in answer.text
        assert answer.headers["content-security-policy"] == POLICY


def test_a_job_is_cancelled_retried_and_deleted_by_forms(server, waiting):
    job, known = waiting
    shown = read(server, job.id)
    assert all(shown.form(f"/jobs/{job.id}/{action}") for action in ("cancel", "retry", "delete"))

    cancelled = send(server, f"/jobs/{job.id}/cancel", {"token": known})
    assert (cancelled.status, cancelled.headers["location"]) == (303, f"/jobs/{job.id}")
    assert status(server, job).state == Job.CANCELLED
    again = send(server, f"/jobs/{job.id}/retry", {"token": known})
    other = again.headers["location"].removeprefix("/jobs/")
    assert again.status == 303 and read(server, other).ids["state"] == "Pending"
    deleted = send(server, f"/jobs/{job.id}/delete", {"token": known})

    assert (deleted.status, deleted.headers["location"]) == (303, "/")
    assert page(server, job.id).status == 404


def test_a_job_is_started_by_a_form(server, waiting):
    _, known = waiting

    answer = send(server, "/jobs", {"token": known, "kind": "simulate", "input": '{"prompt": "ü & <b>", "seconds": 0}'})

    job_id = answer.headers["location"].removeprefix("/jobs/")
    assert answer.status == 303 and ended(server, job_id)["status"] == "completed"
    assert read(server, job_id).ids["output"].strip() == "ü & <b>"
    empty = send(server, "/jobs", {"token": known, "kind": "nobody-does-this", "input": " "})
    assert read(server, empty.headers["location"].removeprefix("/jobs/")).ids["input"].strip() == "{}"


def test_a_script_is_told_where_to_go(server, waiting):
    _, known = waiting

    answer = send(server, "/jobs", {"token": known, "kind": "nobody-does-this"}, accept="application/json")

    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert call(server, "GET", json.loads(answer.text)["location"], accept=BROWSER).status == 200


REFUSED = {
    "no token": ({}, {}, 403, "FORM_TOKEN_INVALID"),
    "another token": ({"token": "0" * 32}, {}, 403, "FORM_TOKEN_INVALID"),
    "a field of no form": ({"token": None, "force": "yes"}, {}, 400, "INVALID_REQUEST"),
    "a page of elsewhere": ({"token": None}, {"origin": "http://evil.example"}, 403, None),
    "a page of elsewhere, by its site": ({"token": None}, {"sec-fetch-site": "cross-site"}, 403, None),
    "JSON": ({"token": None}, {"content_type": "application/json"}, 415, "CONTENT_TYPE_UNKNOWN"),
    "compressed": ({"token": None}, {"content-encoding": "gzip"}, 415, "CONTENT_TYPE_UNKNOWN"),
}


@pytest.mark.parametrize("action", ["cancel", "retry", "delete"])
@pytest.mark.parametrize("fields, headers, code, reason", REFUSED.values(), ids=REFUSED)
def test_a_form_that_is_not_ours_changes_nothing(server, waiting, action, fields, headers, code, reason):
    job, known = waiting
    fields = {name: known if value is None else value for name, value in fields.items()}
    headers = {"content_type": FORM, "accept": "application/json", **headers}

    answer = call(server, "POST", f"/jobs/{job.id}/{action}", urllib.parse.urlencode(fields), **headers)

    assert answer.status == code and (reason is None or json.loads(answer.text)["reason"] == reason), answer.text
    now = status(server, job)
    assert (now.state, now.sequence) == (Job.PENDING, 1), "nothing has happened to it"


def test_a_token_is_of_one_process(start_server):
    server = start_server()
    server.listen = server.address
    job = start(server, kind="nobody-does-this")
    old = token(server, job.id)

    server.stop()
    server.start()
    refused = send(server, f"/jobs/{job.id}/cancel", {"token": old})

    assert refused.status == 403 and "load it anew" in Page(refused.text).text
    assert send(server, f"/jobs/{job.id}/cancel", {"token": token(server, job.id)}).status == 303


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"kind": "", "input": "{}"}, "kind"),
        ({"kind": "No Such", "input": "{}"}, "kind"),
        ({"kind": "simulate", "input": "{"}, "input"),
        ({"kind": "simulate", "input": "[1]"}, "input"),
    ],
)
def test_a_form_with_mistakes_is_told_which(server, waiting, fields, word):
    _, known = waiting

    answer = send(server, "/jobs", {"token": known, **fields})

    assert answer.status == 400 and word in Page(answer.text).text


def test_a_form_that_comes_twice_is_one_request(server, waiting):
    job, known = waiting
    fields = {"token": known, "kind": "nobody-does-this", "input": "{}"}
    request = lambda: re.search(r'name="request" value="([0-9a-f]{32})"', page(server, job.id).text).group(1)
    first, other = request(), request()
    assert first != other, "each page has its own"

    started = [send(server, "/jobs", {**fields, "request": each}) for each in (first, first, other)]

    assert [answer.status for answer in started] == [303] * 3
    one, again, another = [answer.headers["location"] for answer in started]
    assert one == again != another
    reused = send(server, "/jobs", {**fields, "request": first, "input": '{"other": 1}'})
    assert reused.status == 409 and "REQUEST_ID_REUSED" in reused.text


def test_a_browser_keeps_the_files_of_the_pages(server, waiting):
    job, _ = waiting
    names = [attributes.get("src") or attributes["href"] for tag, attributes in read(server, job.id).tags if tag in ("script", "link")]

    assert len(names) == 3
    for name in names:
        kept = call(server, "GET", name)
        assert kept.status == 200 and kept.text and kept.headers["x-content-type-options"] == "nosniff", name
        assert kept.headers["cache-control"] == "public, max-age=31536000, immutable", name
        # What has no version, or that of another server, is asked for each time.
        for other in (name.split("?")[0], name + "0"):
            assert call(server, "GET", other).headers["cache-control"] == "no-cache", other
    for name in ("/assets/", "/assets/none.js", "/assets/style.css", "/assets/../job.js", "/assets/job.js/x"):
        assert call(server, "GET", name).status in (400, 404), name
    assert call(server, "POST", "/assets/job.js", {}).status == 405
