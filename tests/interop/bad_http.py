"""What is wrong with a request over plain HTTP, in tables: what is sent, and the status, reason and field of the answer.

A request stands here as it is sent, byte by byte.
"""

import json

from test_bad_input import NO_SUCH_JOB

JOBS = "/v1/jobs"
JOB = f"{JOBS}/{NO_SUCH_JOB}"
JSON = ("content-type", "application/json")
MIB = 2**20
BODY = b'{"kind":"a"}'


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

# Addresses. What is not in the table of addresses is nowhere; nothing in a path is decoded, joined or forgiven.
PATHS = {
    NOWHERE: [
        *["//", "/v1", "/v1/", "/v1/jobs/", "//v1/jobs", "/v1//jobs", "/v1/jobs//events", "/v1/./jobs", "/v1/../v1/jobs"],
        *["/v1/jobs/../jobs", f"/v1/jobs/../jobs/{NO_SUCH_JOB}", f"{JOB}/..", f"{JOB}/../..", "/v1%2fjobs", "/v1%2Fjobs"],
        *["/%2e%2e/v1/jobs", "/v1/jobs%2f" + NO_SUCH_JOB, "/v1/jobs;a=b", "/v1/jobs%00", "/v1/jobs%20", "/v1\\jobs"],
        *["/V1/jobs", "/v1/Jobs", "/v1/jobs:Count", "/v1/jobs%3Acount", "/v1/jobs:", "/v1/jobs:fly", "/v1/jobs:cancel"],
        *[f"{JOB}%0d%0aa:b", f"{JOB}:", f"{JOB}:fly", f"{JOB}:Watch", f"{JOB}:batchStart", f"{JOB}:watch/", f"{JOB}:watch:cancel"],
        *[f"{JOB}/", f"{JOB}/events/", f"{JOB}/Events", f"{JOB}/events:watch", f"{JOB}/watch", "/v1/jobs/:watch"],
        *["/favicon.ico", "/etc/passwd", "/..//../etc/passwd", "/" + "a/" * 4_000, "http://localhost/x"],
        *["/jobs/", "/jobs//cancel", "/assets", "/assets/", "/assets/none.js", "/Overview", "/overview/"],
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

# What is no request at all, by its status.
BARE = {
    400: [
        *["v1/jobs", "", "/v1/jobs/ x", "/v1/jobs\t", "/v1/jobs/\0", "/v1/jobs/\x7f", "/v1/jobs/\xff", "/v1/jobs/\xc0\xae"],
        *["/v1/jobs?\xff", "/v1/jobs?pageSize= 1"],
    ],
    431: ["/v1/jobs/" + "x" * 17_000, "/v1/jobs?" + "x" * 17_000, "/" + "x" * 70_000],
}

# The methods that an address has.
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

# The queries of an address that is asked for a list, and of others, by the field that is wrong.
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

# Headers that are to be the key of a request, and its body.
KEYS = {
    "none": ([""], b"{}"),
    "quotes around nothing": (['""'], b"{}"),
    "two": (["a", "b"], b"{}"),
    "the same twice": (["a", "a"], b"{}"),
    "not ASCII": (["\xe9"], b"{}"),
    "UTF-8": (["\xc3\xa9"], b"{}"),
    "another than the field": (["a"], b'{"requestId":"b"}'),
}
