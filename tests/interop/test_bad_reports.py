"""Bad input of workers is refused by its path, as that of clients is: every field of WorkerService's methods has a row."""

import pytest
from client import refused
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2, worker_service_pb2, worker_service_pb2_grpc
from test_bad_input import DURATIONS, KINDS, TIMESTAMPS, leaves

TOKEN = "0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11.1.00000000000000aa"
"""Well formed, and of nobody's lease."""
TOKENS = ["", "x", TOKEN[:36], TOKEN[:38], TOKEN + "0", TOKEN.replace("aa", "zz"), "ü" * 57]
METRICS = [{f"m{n}": 1 for n in range(65)}, {"n" * 65: 1}, {"": 1}, {"m": "NaN"}, {"m": "-Infinity"}]
DEEP = {"a": 1}
for _ in range(30):
    DEEP = {"a": DEEP}

# Method and field: values that are bad, in JSON or as a message, and the path that is named where that is another.
BAD = {
    "LeaseJobs": {
        "worker_id": ["", "w" * 129, "ü" * 129],
        "kinds": [[], *(([kind], "kinds[0]") for kind in ["", *KINDS]), [f"kind-{n}" for n in range(101)]],
        "max_jobs": [-1, 101, 2**31 - 1],
        "wait": [*DURATIONS, {"seconds": 31}],
        "lease_duration": [*DURATIONS, {}, {"nanos": 999_999_999}, {"seconds": 3601}],
    },
    "Heartbeat": {
        "reports": [[{"lease_token": TOKEN}] * 1001],
        "reports.lease_token": TOKENS,
    },
    "AppendOutput": {
        "lease_token": TOKENS,
        "offset": [-1],
        "data": [b"x" * (256 * 1024 + 1)],
        "reset_to": [-1],
        "logs": [[{"message": "line"}] * 1001],
        "logs.level": [5, -1],
        "logs.message": ["x" * 8193, "ü" * 4097],
        "log_offset": [-1],
        "channel": ["c" * 65, "ü" * 65],
        "checkpoint.data": [b"x" * (256 * 1024 + 1)],
        "checkpoint.output_bytes": [-1],
        "checkpoint.number": [-1],
    },
    "CompleteJob": {
        "lease_token": TOKENS,
        "result": [("NaN", "result"), ("deep", "result" + 30 * ".a"), "x" * 2**20],
        "result_json": ["", "{", "{} x", "nul", '"\\ud800"', "1e999", "[" * 31 + "]" * 31, '"%s"' % ("x" * 2**20)],
        "metrics": METRICS,
        "output_bytes": [-1],
    },
    "FailJob": {
        "lease_token": TOKENS,
        "failure.reason": ["no", "A B", "A" * 65, "Ü"],
        "failure.message": ["m" * 8193],
        "failure.details": [{"a": "x" * 16384}],
        "retry_delay": DURATIONS,
    },
    "ReleaseJob": {"lease_token": TOKENS, "reason": ["r" * 256], "delay": DURATIONS},
}
# What is bad in one report costs that report, and its lease is renewed all the same; the `reason` of its directive names it.
BAD_REPORTS = {
    "progress.fraction": ["NaN"],
    "progress.stage": ["s" * 129, "ü" * 129],
    "progress.completed": [-1],
    "progress.total": [-1],
    "progress.unit": ["u" * 65],
    "progress.expected_end_time": TIMESTAMPS,
    "metrics": METRICS,
}
# Every value is good.
HARMLESS = {"Heartbeat": {"reports.progress.estimated", "reports.progress.report_time"}, "FailJob": {"failure.permanent"}}
METHODS = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
STREAMS = {"Work", "Emit"}
"""What they carry are these methods' messages."""


def request(method, path, value):
    """A request that is good but for one field."""
    request = getattr(worker_service_pb2, METHODS[method].input_type.name)()
    if method == "LeaseJobs":
        request.worker_id = "worker"
        request.kinds.append("kind")
    message = request
    if path.startswith(("reports.", "logs.")):
        field, path = path.split(".", 1)
        message = getattr(request, field).add()
        if field == "reports":
            message.lease_token = TOKEN
    if "lease_token" in request.DESCRIPTOR.fields_by_name:
        request.lease_token = TOKEN
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
        message.SetInParent()
    field = message.DESCRIPTOR.fields_by_name[name]
    if name == "result":
        message.result.ParseFromString(b"")
        if value == "NaN":
            message.result.number_value = float("nan")
        elif value == "deep":
            json_format.ParseDict(DEEP, message.result)
        else:
            message.result.string_value = value
    elif hasattr(value, "DESCRIPTOR"):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, (dict, list)) and name == "metrics":
        getattr(message, name).update({key: float(number) for key, number in value.items()})
    elif isinstance(value, list):
        message.ClearField(name)
        json_format.ParseDict({name: value}, message)
    elif isinstance(value, dict) and field.message_type.full_name == "google.protobuf.Duration":
        duration = getattr(message, name)
        duration.SetInParent()
        duration.seconds, duration.nanos = value.get("seconds", 0), value.get("nanos", 0)
    elif isinstance(value, dict):
        getattr(message, name).update(value)
    elif value == "NaN":
        setattr(message, name, float("nan"))
    else:
        setattr(message, name, value)
    return request


def rows():
    for method, fields in BAD.items():
        for path, values in fields.items():
            for number, value in enumerate(values):
                named = path.replace("reports.", "reports[0].").replace("logs.", "logs[0].")
                value, named = value if isinstance(value, tuple) else (value, named)
                yield pytest.param(method, path, value, named, id=f"{method}-{path}-{number}")


@pytest.fixture(scope="module")
def workers(server):
    return worker_service_pb2_grpc.WorkerServiceStub(server.channel)


@pytest.mark.parametrize("method, path, value, named", rows())
def test_a_bad_report_is_refused_by_its_path(workers, method, path, value, named):
    refusal = refused(getattr(workers, method), request(method, path, value))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST"), refusal.message
    assert set(refusal.fields) == {named}, refusal.message
    assert named in refusal.message


@pytest.fixture(scope="module")
def leased(server, workers):
    """The token of a lease that goes on."""
    server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="bad-reports"), timeout=30)
    wanted = {"worker_id": "worker", "kinds": ["bad-reports"], "wait": "20s", "lease_duration": "600s"}
    answer = workers.LeaseJobs(json_format.ParseDict(wanted, worker_service_pb2.LeaseJobsRequest()), timeout=30)
    return answer.assignments[0].lease_token


@pytest.mark.parametrize("path, value", [(path, value) for path, values in BAD_REPORTS.items() for value in values])
def test_a_bad_report_costs_itself_and_no_lease(workers, leased, path, value):
    bad = request("Heartbeat", f"reports.{path}", value)
    bad.reports[0].lease_token = leased

    directive = workers.Heartbeat(bad, timeout=30).directives[0]

    assert directive.action == worker_service_pb2.Directive.RENEWED
    assert directive.reason.startswith(f"{path}: ")


def test_every_field_of_every_method_has_a_row():
    assert set(BAD) == set(METHODS) - STREAMS
    for method, fields in BAD.items():
        reports = {f"reports.{path}" for path in BAD_REPORTS} if method == "Heartbeat" else set()
        known = {*fields, *reports, *HARMLESS.get(method, ())} - {"reports", "logs"}
        assert set(leaves(METHODS[method].input_type)) == known, method


def test_a_lease_of_nobody_is_lost(workers):
    report = worker_service_pb2.Report(lease_token=TOKEN)
    answer = workers.Heartbeat(worker_service_pb2.HeartbeatRequest(reports=[report]), timeout=30)

    assert answer.directives[0].action == worker_service_pb2.Directive.LEASE_LOST
    for method in ["AppendOutput", "CompleteJob", "ReleaseJob"]:
        refusal = refused(getattr(workers, method), request(method, "lease_token", TOKEN))
        assert (refusal.code, refusal.reason) in {("FAILED_PRECONDITION", "LEASE_LOST"), ("NOT_FOUND", "JOB_NOT_FOUND")}
