"""Bad input for every field of every request is refused clearly, by the field's path, and leaves nothing behind.

A table: one row a fault. A field of the contract that has no row fails a test, so that a new field gets its rows.
"""

import time

import grpc
import pytest
from client import Job, refused, simulate, start, states, status, watch
from conftest import until
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from longhaul.v1 import job_service_pb2, job_service_pb2_grpc

NO_SUCH_JOB = "0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11"
TEN_YEARS = 10 * 366 * 24 * 3600
NAN, INFINITY = float("nan"), float("inf")
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1


def object_of(value):
    """The object {"a": value}."""
    object = Struct()
    object["a"] = value
    return object


def nested(levels):
    """An object of that many levels."""
    object = Struct()
    for _ in range(levels - 1):
        object = object_of(object)
    return object


def nested_text(levels):
    """The same as JSON text."""
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


DURATIONS = [
    Duration(seconds=-1),
    Duration(nanos=-1),
    Duration(seconds=1, nanos=-1),
    Duration(seconds=1, nanos=10**9),
    Duration(seconds=TEN_YEARS + 1),
    Duration(seconds=INT64_MAX),
    Duration(seconds=-INT64_MAX - 1, nanos=-INT32_MAX - 1),
]
TIMESTAMPS = [
    Timestamp(seconds=-62135596801),
    Timestamp(seconds=253402300800),
    Timestamp(seconds=INT64_MAX),
    Timestamp(seconds=-INT64_MAX - 1),
    Timestamp(nanos=-1),
    Timestamp(nanos=10**9),
]
IDS = ["", "x", NO_SUCH_JOB[:-1], NO_SUCH_JOB + "0", NO_SUCH_JOB.replace("-", ""), f"{{{NO_SUCH_JOB}}}", "ü" * 36]

LABELS = [
    {f"key-{n}": "" for n in range(33)},
    {f"key-{n}": "" for n in range(50_000)},
    ({"": "no key"}, 'labels[""]'),
    ({"k" * 64: ""}, 'labels["%s"]' % ("k" * 63)),
    ({"key": "v" * 256}, 'labels["key"]'),
    ({"key": "ü" * 256}, 'labels["key"]'),
    ({"key": "v" * 2**20}, 'labels["key"]'),
]
KINDS = ["A", "a b", "ü", "a/b", "a\0", "a\n", "k" * 65, "k" * 100_000]
REQUEST_IDS = ["r" * 129, "r" * 100_000, "ü", "a\n", "\0", "\x7f"]
STATES = [0, 10, 77, -1, INT32_MAX, -INT32_MAX - 1]


def within(parent, values):
    """The same values, where what lies deeper is named with its parent."""
    return [(value[0], f"{parent}.{value[1]}") if isinstance(value, tuple) else value for value in values]


def each(path, values):
    """Lists whose second element is bad."""
    return [([values[0], value], f"{path}[1]") for value in values[1:]]


FILTER = {
    "filter.states": [*each("filter.states", [Job.RUNNING, *STATES]), ([77], "filter.states[0]")],
    "filter.kinds": [
        *each("filter.kinds", ["simulate", "", *KINDS]),
        [f"kind-{n}" for n in range(65)],
        ["simulate"] * 100_000,
    ],
    "filter.labels": within("filter", LABELS),
    "filter.create_time_min": TIMESTAMPS,
    "filter.create_time_max": TIMESTAMPS,
}

# Method and field: values that are bad. A tuple is a value and the path that is named, where it lies deeper.
BAD = {
    "StartJob": {
        "kind": ["", *KINDS],
        "input": [
            (object_of(NAN), "input.a"),
            (object_of(INFINITY), "input.a"),
            (object_of(ListValue(values=[object_of(-INFINITY).fields["a"]])), "input.a[0]"),
            (object_of(object_of(NAN)), "input.a.a"),
            (nested(31), "input" + 30 * ".a"),
            object_of("x" * 2**20),
        ],
        "input_json": [
            *["", " ", "null", "[]", "1", '"{}"', "{", "}", "{}{}", "{} x", "{},", "\ufeff{}", "// a\n{}"],
            *['{"a"}', "{a: 1}", "{'a': 1}", '{"a": 1,}', '{"a": 01}', '{"a": NaN}', '{"a": 1e999}'],
            *['{"a": "\n"}', '{"a": "\\x"}', '{"a": "\\ud800"}'],
            *[nested_text(31), nested_text(1_000), nested_text(100_000), "[" * 100_000],
            '{"a": "%s"}' % ("x" * 2**20),
        ],
        "options.priority": [-101, 101, INT32_MAX, -INT32_MAX - 1],
        "options.schedule_time": TIMESTAMPS,
        "options.retry_policy.maximum_attempts": [-1, 1001, INT32_MAX, -INT32_MAX - 1],
        "options.retry_policy.initial_interval": DURATIONS,
        "options.retry_policy.backoff_coefficient": [-1, 0.5, 0.999, 1000.1, NAN, INFINITY, -INFINITY],
        "options.retry_policy.maximum_interval": DURATIONS,
        "options.schedule_to_start_timeout": [*DURATIONS, Duration(), Duration(nanos=1)],
        "options.start_to_close_timeout": [*DURATIONS, Duration(), Duration(nanos=1)],
        "options.schedule_to_close_timeout": [*DURATIONS, Duration(), Duration(nanos=1)],
        "options.concurrency_key": ["k" * 129, "ü" * 129],
        "options.concurrency_limit": [-1, 100_001, INT32_MAX, -INT32_MAX - 1],
        "options.progress_timeout": [*DURATIONS, Duration(), Duration(nanos=1)],
        "options.retention": DURATIONS,
        "request_id": REQUEST_IDS,
        "labels": LABELS,
    },
    "GetStatus": {"job_id": IDS, "view": [3, -1, INT32_MAX]},
    "WatchJob": {
        "job_id": IDS,
        "after_sequence": [-1, -INT64_MAX - 1],
        "minimum_interval": [*DURATIONS, Duration(seconds=3601)],
        "view": [3, -1],
    },
    "CancelJob": {
        "job_id": IDS,
        "reason": ["r" * 256, "ü" * 256],
        "grace_period": [*DURATIONS, Duration(seconds=601), Duration(seconds=600, nanos=1)],
    },
    "ListJobEvents": {"job_id": IDS, "after_sequence": [-1, -INT64_MAX - 1], "page_size": [-1, -INT32_MAX - 1]},
    "WatchJobs": {
        **FILTER,
        "minimum_interval": [*DURATIONS, Duration(seconds=3601)],
        "initial_jobs": [-1, 1001, INT32_MAX, -INT32_MAX - 1],
    },
    "ListJobs": {
        **FILTER,
        "page_size": [-1, -INT32_MAX - 1],
        "page_token": ["x", "00", "ü", "x" * 100_000, ".", "1.", "-1.00000000", "+1.00000000", "1.ffffffff"],
        "view": [3, -1, INT32_MAX],
    },
    "CountJobs": {"kinds": [*each("kinds", ["simulate", "", *KINDS]), [f"kind-{n}" for n in range(65)]]},
    "RetryJob": {"job_id": IDS, "request_id": REQUEST_IDS},
    "DeleteJob": {"job_id": IDS},
}
# Every fault of a request is one of a batch as well, named with its place there.
BAD["BatchStartJobs"] = {
    f"requests.{field}": [
        (bad[0], f"requests[3].{bad[1]}") if isinstance(bad, tuple) else (bad, f"requests[3].{field}") for bad in values
    ]
    for field, values in BAD["StartJob"].items()
}
# Fields that cannot be bad.
HARMLESS = {("WatchJob", "omit_output"): "either is fine"}
# The largest and the smallest that is good.
GOOD = {
    "kind": ["k" * 64, "a-z.0_9"],
    "input": [nested(30), Struct()],
    "input_json": [
        *["{}", ' {"a": 1e308, "\\ud83d\\ude00": null} \n', nested_text(30)],
        '{"a": "%s"}' % ("x" * (2**20 - 9)),
    ],
    "options.priority": [-100, 100],
    "options.schedule_time": [Timestamp(), Timestamp(seconds=-62135596800), Timestamp(seconds=253402300799)],
    "options.retry_policy.maximum_attempts": [1, 1000],
    "options.retry_policy.initial_interval": [Duration(), Duration(seconds=TEN_YEARS)],
    "options.retry_policy.backoff_coefficient": [1, 1000],
    "options.retry_policy.maximum_interval": [Duration(), Duration(seconds=TEN_YEARS)],
    "options.schedule_to_start_timeout": [Duration(nanos=1000), Duration(seconds=TEN_YEARS)],
    "options.start_to_close_timeout": [Duration(nanos=1000), Duration(seconds=TEN_YEARS)],
    "options.schedule_to_close_timeout": [Duration(nanos=1000), Duration(seconds=TEN_YEARS)],
    "options.concurrency_key": ["k" * 128, "ü" * 128],
    "options.concurrency_limit": [1, 100_000],
    "options.progress_timeout": [Duration(nanos=1000), Duration(seconds=TEN_YEARS)],
    "options.retention": [Duration(), Duration(seconds=TEN_YEARS)],
    "request_id": ["r" * 128, " ~"],
    "labels": [{f"key-{n}": "" for n in range(32)}, {"ü" * 63: "ü" * 255}],
}


def request_of(method):
    """The class of a method's requests."""
    service = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
    return getattr(job_service_pb2, service.methods_by_name[method].input_type.name)


def request(method, path, value):
    """A request that is good but for one field."""
    request = simulate() if method == "StartJob" else request_of(method)()
    message = request
    if method == "BatchStartJobs":
        request.requests.extend(simulate() for _ in range(5))
        message, path = request.requests[3], path.removeprefix("requests.")
    if "job_id" in request.DESCRIPTOR.fields_by_name:
        request.job_id = NO_SUCH_JOB
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    field = getattr(message, name)
    if hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    elif isinstance(value, dict):
        field.update(value)
    elif isinstance(value, list):
        field.extend(value)
    else:
        setattr(message, name, value)
    return request


def rows(table):
    """The rows of a table, with names that fit a line."""
    for method, fields in table.items():
        for path, values in fields.items():
            for number, value in enumerate(values):
                value, named = value if isinstance(value, tuple) else (value, path)
                yield pytest.param(method, path, value, named, id=f"{method}-{path}-{number}")


def leaves(message, prefix=""):
    """The paths of all fields of a message, those of its own messages included."""
    for field in message.fields:
        own = field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.full_name.startswith("longhaul.")
        if own and not field.message_type.GetOptions().map_entry:
            yield from leaves(field.message_type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


@pytest.mark.parametrize("method, path, value, named", rows(BAD))
def test_bad_input_is_refused_by_its_path(server, method, path, value, named):
    refusal = refused(getattr(server.jobs, method), request(method, path, value))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST"), refusal.message
    assert set(refusal.fields) == {named}, refusal.message
    assert named in refusal.message
    assert refusal.retry_after is None, "trying again does not help"


@pytest.mark.parametrize("method, path, value, named", rows({"StartJob": GOOD}))
def test_the_limit_itself_is_good(server, method, path, value, named):
    job = server.jobs.StartJob(request(method, path, value), timeout=30)

    assert status(server, job).HasField("input"), "what was accepted can be shown"
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=30)


def test_every_method_of_the_contract_has_rows():
    assert set(BAD) == set(job_service_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name)


@pytest.mark.parametrize("method", BAD)
def test_every_field_of_the_contract_has_a_row(method):
    fields = set(leaves(request_of(method).DESCRIPTOR))
    with_row = {*BAD[method], *(name for at, name in HARMLESS if at == method)}

    assert fields == with_row
    if method == "StartJob":
        assert fields == set(GOOD)


def test_all_that_is_wrong_is_told_at_once(server):
    spoilt = simulate(request_id="ü")
    spoilt.kind, spoilt.options.priority = "No!", 101
    spoilt.options.retention.seconds = -1

    refusal = refused(server.jobs.StartJob, spoilt)

    assert set(refusal.fields) == {"kind", "request_id", "options.priority", "options.retention"}


def batch(*requests):
    """A request for a batch of these."""
    return job_service_pb2.BatchStartJobsRequest(requests=requests)


def kinds(server, *kinds):
    """How many jobs of these kinds there are."""
    counts = server.jobs.CountJobs(job_service_pb2.CountJobsRequest(kinds=kinds), timeout=30).counts
    return sum(count.jobs for count in counts)


def test_a_batch_with_one_bad_request_starts_nothing(server):
    good = job_service_pb2.StartJobRequest(kind="all-or-none")
    bad = job_service_pb2.StartJobRequest(kind="No!")

    refusal = refused(server.jobs.BatchStartJobs, batch(good, bad, good, bad))

    assert set(refusal.fields) == {"requests[1].kind", "requests[3].kind"}
    assert kinds(server, "all-or-none") == 0


def test_a_batch_has_its_limit(server):
    good = job_service_pb2.StartJobRequest(kind="in-batches")

    refusal = refused(server.jobs.BatchStartJobs, batch(*[good] * 1_001))
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", ["requests"])
    assert "1001" in refusal.message and "1000" in refusal.message
    assert kinds(server, "in-batches") == 0

    started = server.jobs.BatchStartJobs(batch(*[good] * 1_000), timeout=30)
    assert len({job.id for job in started.jobs}) == 1_000 == kinds(server, "in-batches")
    assert not server.jobs.BatchStartJobs(batch(), timeout=30).jobs


def test_a_batch_beyond_the_limit_of_bytes_starts_nothing(server):
    big = job_service_pb2.StartJobRequest(kind="too-big", input_json='{"a": "%s"}' % ("x" * (2**20 - 9)))

    refusal = refused(server.jobs.BatchStartJobs, batch(*[big] * 4))

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert refusal.retry_after is None, "trying again does not help"
    assert kinds(server, "too-big") == 0


def test_a_request_id_names_one_request_of_a_batch(server):
    def request(kind, request_id="twice"):
        return job_service_pb2.StartJobRequest(kind=kind, request_id=request_id)

    refusal = refused(server.jobs.BatchStartJobs, batch(request("a-kind"), request("b-kind", ""), request("b-kind")))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert refusal.fields == ["requests[2].request_id"]
    assert kinds(server, "a-kind", "b-kind") == 0


def test_a_batch_that_repeats_a_forgotten_job_starts_nothing(server):
    """It was answered with NOT_FOUND too, but the others were started."""
    named = simulate(request_id="forgotten")
    job = server.jobs.StartJob(named, timeout=30)
    watch(server, job)
    server.jobs.DeleteJob(job_service_pb2.DeleteJobRequest(job_id=job.id), timeout=30)
    other = job_service_pb2.StartJobRequest(kind="beside-it")

    refusal = refused(server.jobs.BatchStartJobs, batch(other, named, other))

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")
    assert kinds(server, "beside-it") == 0


def test_a_full_queue_takes_none_of_a_batch(start_server):
    server = start_server("--queue-max", "3")
    waiting = job_service_pb2.StartJobRequest(kind="nobody-does-this")

    refusal = refused(server.jobs.BatchStartJobs, batch(*[waiting] * 4))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert refusal.retry_after.total_seconds() > 0
    assert kinds(server, "nobody-does-this") == 0

    assert len(server.jobs.BatchStartJobs(batch(*[waiting] * 3), timeout=30).jobs) == 3


def test_a_page_of_another_list_is_refused(server):
    start(server), start(server)
    one = job_service_pb2.ListJobsRequest(page_size=1, filter={"kinds": ["simulate"]})
    other = job_service_pb2.ListJobsRequest(page_size=1, filter={"kinds": ["another"]})
    other.page_token = one.page_token = server.jobs.ListJobs(one, timeout=30).next_page_token

    refusal = refused(server.jobs.ListJobs, other)

    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["page_token"])
    assert "filter" in refusal.message
    assert server.jobs.ListJobs(one, timeout=30).jobs


def test_the_error_of_a_request_with_a_thousand_faults_fits_into_a_client_without_settings(server):
    bad = job_service_pb2.StartJobRequest(kind="ü" * 100, input=object_of(NAN), labels={"\0" * 64: "ü" * 256})
    long_key = Struct()
    long_key["ü" * 100_000] = NAN
    states = job_service_pb2.ListJobsRequest(filter={"states": [77] * 1_000_000})
    with grpc.insecure_channel(server.address) as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        for call, request in [
            (jobs.BatchStartJobs, batch(*[bad] * 1_000)),
            (jobs.StartJob, job_service_pb2.StartJobRequest(kind="simulate", input=long_key)),
            (jobs.ListJobs, states),
        ]:
            refusal = refused(call, request)

            assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST"), refusal.message
            assert refusal.fields


def test_a_request_of_many_numbers_below_a_long_key_is_cheap(server):
    """The path of each number was made, key and all, whether it was needed or not."""
    object = Struct()
    object.fields["k" * 2**20].list_value.values.extend(Value(number_value=1) for _ in range(270_000))
    begin = time.monotonic()

    refusal = refused(server.jobs.StartJob, job_service_pb2.StartJobRequest(kind="simulate", input=object))

    assert refusal.fields == ["input"], "it is too large"
    assert time.monotonic() - begin < 3, "it took over 8 s once"


@pytest.mark.parametrize("state", [Job.PENDING, Job.RUNNING])
@pytest.mark.parametrize("method", ["RetryJob", "DeleteJob"])
def test_an_active_job_is_neither_repeated_nor_forgotten(server, method, state):
    kind = "simulate" if state == Job.RUNNING else "nobody-does-this"
    job = server.jobs.StartJob(simulate({"seconds": 60}, kind=kind), timeout=30)
    until(lambda: status(server, job).state == state, Job.State.Name(state))

    refusal = refused(getattr(server.jobs, method), request_of(method)(job_id=job.id))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "JOB_ACTIVE")
    assert refusal.retry_after is None
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=30)


@pytest.mark.parametrize("method", [method for method in BAD if "job_id" in BAD[method]])
def test_a_job_that_is_not_there_is_not_found(server, method):
    refusal = refused(getattr(server.jobs, method), request_of(method)(job_id=NO_SUCH_JOB))

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")


def test_a_cursor_ahead_of_the_job_is_out_of_range(server):
    ahead = job_service_pb2.WatchJobRequest(job_id=start(server).id, after_sequence=1_000_000)

    refusal = refused(server.jobs.WatchJob, ahead)

    assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "AHEAD_OF_JOB")
    assert refusal.fields == ["after_sequence"]


def test_a_full_queue_says_when_to_come_again(start_server):
    server = start_server("--queue-max", "2")
    waiting = job_service_pb2.StartJobRequest(kind="nobody-does-this")
    for _ in range(2):
        server.jobs.StartJob(waiting, timeout=30)

    refusal = refused(server.jobs.StartJob, waiting)

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert refusal.retry_after.total_seconds() > 0


def deep_struct(levels):
    """The bytes of a request whose input has that many levels; Python's own encoder refuses them."""

    def field(number, body):
        length, varint = len(body), b""
        while length > 0x7F:
            varint += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + varint + bytes([length]) + body

    body = b""
    for _ in range(levels):
        # Struct.fields, an entry of key "a" and a Value that is a struct.
        body = field(1, field(1, b"a") + field(2, field(5, body)))
    return field(1, b"simulate") + field(2, body)


MALFORMED = {
    "a length beyond the end": b"\x0a\x7f",
    "a varint without end": b"\x08" + b"\xff" * 11,
    "text that is not UTF-8": b"\x0a\x02\xff\xfe",
    "a group that nobody closes": b"\x0b",
    "the wrong wire type": b"\x08\x01",
    "field number 0": b"\x00\x00",
    "a struct of 1,000 levels": deep_struct(1_000),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_bytes_that_are_no_request_are_refused(server, name):
    call = server.channel.unary_unary("/longhaul.v1.JobService/StartJob", response_deserializer=Job.FromString)

    refusal = refused(call, MALFORMED[name])

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST"), refusal.message


def test_a_request_beyond_all_limits_is_refused(server):
    refusal = refused(server.jobs.StartJob, simulate({"prompt": "x" * (5 << 20)}))

    assert refusal.code == "RESOURCE_EXHAUSTED", refusal.message


def test_after_all_of_it_the_server_works(server):
    """It must also end well, without a panic in its log; the fixture sees to that."""
    assert states(watch(server, start(server)))[-1] == "SUCCEEDED"
    assert "panicked" not in server.log()
