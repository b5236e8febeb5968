"""The Python worker by the unary methods, with heartbeats from a thread."""

import threading
import time

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from longhaul.v1.worker_service_pb2 import (
    AppendOutputRequest, FailJobRequest, HeartbeatRequest, LeaseJobsRequest, Report,
)
from steps import PAUSE, Worker, tell

TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
TIMEOUT = 3
"""Seconds for a call; what has no answer by then is repeated over another connection."""
LONG_POLL = 2
"""Seconds that a call for jobs may take longer."""


class Refused(Exception):
    """The server refused a report; the reason is its argument."""


class UnaryForm(Worker):
    """A worker that repeats each call until it has an answer."""

    poll = None

    def serve(self):
        threading.Thread(target=self.beat, daemon=True).start()
        tell("welcome", kept={})
        while not self.draining:
            free = self.options.slots - len(self.leases)
            if not free:
                with self.changed:
                    self.changed.wait(0.1)
                continue
            request = LeaseJobsRequest(worker_id=self.options.name, kinds=[self.options.kind], max_jobs=free)
            request.wait.FromSeconds(LONG_POLL)
            stub = self.stub
            self.poll = stub.LeaseJobs.future(request, timeout=LONG_POLL + TIMEOUT)
            try:
                answer = self.poll.result()
                self.interval = answer.terms.heartbeat_interval.ToTimedelta().total_seconds()
                # What comes too late for us is never accepted, and goes to somebody else.
                for assignment in () if self.draining else answer.assignments:
                    self.take(assignment)
            except grpc.FutureCancelledError:
                pass
            except grpc.RpcError as error:
                self.broken("LeaseJobs", error, stub)
        with self.changed:
            while self.leases:
                self.changed.wait(0.1)

    def offer(self):
        if self.poll:
            self.poll.cancel()

    def broken(self, method, error, stub):
        """Gets ready for another try."""
        tell("broken", stream=method, code=error.code().name)
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and stub is self.stub:
            self.reconnect()
        time.sleep(PAUSE)

    def call(self, method, request):
        """Repeats a call until it has an answer."""
        while True:
            stub = self.stub
            try:
                return getattr(stub, method)(request, timeout=TIMEOUT)
            except grpc.RpcError as error:
                if error.code() not in TRANSIENT:
                    raise Refused(reason_of(error)) from error
                self.broken(method, error, stub)

    def heartbeat(self, reports):
        answer = self.call("Heartbeat", HeartbeatRequest(reports=reports))
        assert [d.lease_token for d in answer.directives] == [r.lease_token for r in reports], "directives out of order"
        for directive in answer.directives:
            if lease := self.leases.get(directive.lease_token):
                lease.obey(directive)

    def beat(self):
        while True:
            with self.changed:
                tokens = [lease.token for lease in self.leases.values() if not lease.is_silent]
            if tokens:
                self.heartbeat([Report(lease_token=token) for token in tokens])
            time.sleep(self.interval)

    def report(self, lease, report):
        self.heartbeat([report])

    def append(self, lease, data=b"", channel="", log=None, checkpoint=None):
        output = lease.output[channel]
        request = AppendOutputRequest(lease_token=lease.token, channel=channel, offset=len(output), data=data)
        request.log_offset = len(lease.logs)
        request.logs.extend([log] if log else [])
        if checkpoint:
            lease.checkpoint = checkpoint
            request.checkpoint.CopyFrom(checkpoint)
        output += data
        lease.logs += [log] if log else []
        try:
            answer = self.call("AppendOutput", request)
            lease.durable[channel], lease.durable_logs = answer.durable_bytes, answer.durable_logs
            lease.durable_checkpoints = answer.durable_checkpoints
        except Refused as refusal:
            tell("refused", job=lease.job, what="append", reason=str(refusal))
            lease.refusal = str(refusal)

    def end(self, lease, what, request, twice=False):
        method = {"complete": "CompleteJob", "fail": "FailJob", "release": "ReleaseJob"}[what]
        try:
            answer = json_format.MessageToDict(self.call(method, request))
            tell("reported", job=lease.job, what=what, **answer)
            if twice:
                tell("repeated", job=lease.job, reason="", **json_format.MessageToDict(self.call(method, request)))
        except Refused as refusal:
            tell("refused", job=lease.job, what=what, reason=str(refusal))
            if str(refusal) == "JOB_CANCELLED":
                return self.end(lease, "fail", FailJobRequest(lease_token=lease.token))
        self.drop(lease)


def reason_of(error):
    """The stable reason in an error's details."""
    info = error_details_pb2.ErrorInfo()
    rich = rpc_status.from_call(error)
    return info.reason if rich and any(detail.Unpack(info) for detail in rich.details) else error.code().name
