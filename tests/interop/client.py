"""What the Python tests share: requests, errors with their details, and how a reader renders output."""

import grpc
import pytest
from conftest import until
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from longhaul.v1 import job_pb2, job_service_pb2

Job = job_pb2.Job
FINAL = {Job.SUCCEEDED, Job.FAILED, Job.CANCELLED, Job.EXPIRED}
LATEST_WINS = {"snapshot", "progress", "metrics", "queue_update", "keepalive"}
TIMEOUT = 30


def simulate(input=(), options=(), **fields):
    """A request for a job of the kind `simulate`."""
    body = {"kind": "simulate", "input": {"seconds": 0.2, **dict(input)}, "options": dict(options), **fields}
    return json_format.ParseDict(body, job_service_pb2.StartJobRequest())


def start(server, *arguments, **fields):
    """Starts such a job, and returns it."""
    return server.jobs.StartJob(simulate(*arguments, **fields), timeout=TIMEOUT)


def watch(server, job, after=0, **fields):
    """Every message of a watch, to its end."""
    request = job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=after, **fields)
    return list(server.jobs.WatchJob(request, timeout=TIMEOUT))


def status(server, job):
    """The job as it is now."""
    return server.jobs.GetStatus(job_service_pb2.GetStatusRequest(job_id=job.id), timeout=TIMEOUT)


def history(server, job, page_size=7):
    """Every kept event, page by page."""
    events, request = [], job_service_pb2.ListJobEventsRequest(job_id=job.id, page_size=page_size)
    while True:
        page = server.jobs.ListJobEvents(request, timeout=TIMEOUT)
        events += page.events
        if not page.next_after_sequence:
            return events
        request.after_sequence = page.next_after_sequence


def kept(messages):
    """Those messages that are kept events."""
    return [message for message in messages if message.WhichOneof("event") not in LATEST_WINS]


def states(messages):
    """The states that a job went through."""
    changes = (message.state_change for message in messages if message.HasField("state_change"))
    return [Job.State.Name(change.state) for change in changes]


def rendered(messages, channel=""):
    """A channel's output as a reader shows it in the end, held to the contract on the way."""
    text = b""
    for message in messages:
        if message.HasField("output_reset") and message.output_reset.channel == channel:
            text = text[: message.output_reset.kept_bytes]
        if message.HasField("output") and message.output.channel == channel:
            assert message.output.offset == len(text), "output came with a gap or twice"
            text += message.output.data
    return text.decode()


def running(server, job):
    """Waits until a job runs."""
    until(lambda: status(server, job).state == Job.RUNNING, "RUNNING")


class Refusal:
    """An error with its details, which every error of this server has."""

    def __init__(self, error):
        self.code, self.message = error.code().name, error.details()
        rich = rpc_status.from_call(error)
        assert rich is not None, f"{self.code} without details: {self.message}"
        details = {}
        for name in ("ErrorInfo", "BadRequest", "RetryInfo"):
            message = getattr(error_details_pb2, name)()
            if any(any_value.Unpack(message) for any_value in rich.details):
                details[name] = message
        assert "ErrorInfo" in details, f"{self.code} without an ErrorInfo: {self.message}"
        assert details["ErrorInfo"].domain == "longhaul", details
        self.reason = details["ErrorInfo"].reason
        bad = details.get("BadRequest", error_details_pb2.BadRequest())
        self.fields = [violation.field for violation in bad.field_violations]
        self.retry_after = details["RetryInfo"].retry_delay.ToTimedelta() if "RetryInfo" in details else None


def refused(call, *arguments, **options):
    """Makes a call that must fail, and returns how it did."""
    with pytest.raises(grpc.RpcError) as raised:
        answer = call(*arguments, timeout=TIMEOUT, **options)
        # A stream fails only when it is read.
        if isinstance(answer, grpc.Call):
            list(answer)
    return Refusal(raised.value)
