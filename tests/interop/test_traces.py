"""Traces as a collector gets them: the spans of the client, of the server and of the worker are one tree.

The collector is a few lines of grpcio over the protos of OpenTelemetry. Client and worker are Python programs of this file, which
export their own spans to it as any instrumented program does.
"""

import concurrent.futures
import os
import re
import subprocess
import threading
import time
import urllib.request

import grpc
import programs
import pytest
from client import Job, status, watch
from conftest import BINARY, WAIT, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2, worker_service_pb2, worker_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

SERVER = {"StartJob", "commit", "queue", "claim", "attempt 1"}
"""The spans of the server. Their times are held against each other alone: the others come from the clocks of other processes."""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it gets, each with its resource."""

    def __init__(self):
        self.spans, self.changed = [], threading.Lock()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request, context):
        with self.changed:
            for resource in request.resource_spans:
                about = attributes(resource.resource)
                self.spans += [(about, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace):
        """The spans of a trace, by name."""
        with self.changed:
            found = [span for _, span in self.spans if span.trace_id == trace]
        names = [span.name for span in found]
        assert len(set(names)) == len(names), f"something is told twice: {names}"
        return {span.name: span for span in found}

    def gets(self, trace, *names):
        """Waits until it has these spans of a trace, and returns all of it."""
        return until(lambda: set(names) <= set(spans := self.of(trace)) and spans, f"{names} at the collector")


class Program:
    """Somebody who makes spans, and exports them."""

    def __init__(self, name, collector):
        self.name = name
        self.exporter = trace_service_pb2_grpc.TraceServiceStub(grpc.insecure_channel(collector.address))

    def begin(self, name, traceparent=None):
        """A span, in the trace and below the span that a traceparent names."""
        _, trace, parent, flags = traceparent.split("-") if traceparent else (0, os.urandom(16).hex(), "", "01")
        assert flags == "01"
        return trace_pb2.Span(
            name=name, trace_id=bytes.fromhex(trace), span_id=os.urandom(8), parent_span_id=bytes.fromhex(parent),
            start_time_unix_nano=time.time_ns(),
        )

    def end(self, span):
        span.end_time_unix_nano = time.time_ns()
        request = trace_service_pb2.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = self.name
        resource.scope_spans.add().spans.append(span)
        self.exporter.Export(request, timeout=WAIT)


class Worker(Program):
    """A worker by the unary methods, one call after the other."""

    def __init__(self, server, collector):
        super().__init__("worker", collector)
        self.connect(server)

    def connect(self, server):
        self.server = worker_service_pb2_grpc.WorkerServiceStub(grpc.insecure_channel(server.address))

    def lease(self, kind="traced"):
        """Takes a job, and accepts it."""
        request = worker_service_pb2.LeaseJobsRequest(worker_id="worker-1", kinds=[kind], max_jobs=1)
        request.wait.FromSeconds(WAIT)
        assignment = self.server.LeaseJobs(request, timeout=2 * WAIT).assignments[0]
        report = worker_service_pb2.Report(lease_token=assignment.lease_token)
        self.server.Heartbeat(worker_service_pb2.HeartbeatRequest(reports=[report]), timeout=WAIT)
        return assignment

    def complete(self, assignment):
        request = worker_service_pb2.CompleteJobRequest(lease_token=assignment.lease_token, result_json="{}")
        self.server.CompleteJob(request, timeout=WAIT, wait_for_ready=True)

    def fail(self, assignment, reason):
        request = worker_service_pb2.FailJobRequest(lease_token=assignment.lease_token)
        request.failure.reason, request.failure.message = reason, "as it was told"
        self.server.FailJob(request, timeout=WAIT)


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.server.stop(None)


def attributes(about):
    """The attributes of a span or a resource."""
    value = lambda one: getattr(one.value, one.value.WhichOneof("value"))
    return {one.key: value(one) for one in about.attributes}


def traceparent(span, flags="01"):
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}-{flags}"


def start(server, kind="traced", traced=None, **fields):
    """Starts a job, as a part of a span."""
    request = json_format.ParseDict({"kind": kind, "input": {}, **fields}, job_service_pb2.StartJobRequest())
    metadata = [("traceparent", traced), ("tracestate", "vendor=1")] if traced else []
    return server.jobs.StartJob(request, timeout=WAIT, metadata=metadata)


def is_one_tree(spans, root):
    """Checks that every span has its parent, down from one root, and begins no earlier than that where one clock says so."""
    by_id = {span.span_id: span for span in spans.values()}
    assert [span.name for span in spans.values() if not span.parent_span_id] == [root]
    for span in spans.values():
        assert span.start_time_unix_nano <= span.end_time_unix_nano, span
        above = span
        for _ in spans:
            if not above.parent_span_id:
                break
            assert above.parent_span_id in by_id, f"the parent of {above.name} is missing"
            below, above = above, by_id[above.parent_span_id]
            if {above.name, below.name} <= SERVER:
                assert above.start_time_unix_nano <= below.start_time_unix_nano, (above, below)
        assert above.name == root, f"{span.name} is in a circle"


@pytest.mark.parametrize("killed", [False, True], ids=["", "the server killed meanwhile"])
def test_a_job_is_one_tree_from_its_client_to_its_worker(start_server, collector, killed):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")
    client, worker = Program("client", collector), Worker(server, collector)

    asking = client.begin("ask")
    job = start(server, traced=traceparent(asking))
    client.end(asking)
    assignment = worker.lease()
    work = worker.begin("work", assignment.traceparent)
    # What is on its way to the collector when the server dies is lost: a second's worth.
    collector.gets(asking.trace_id, "ask", "StartJob", "commit", "queue", "claim")
    if killed:
        server.kill()
        server.start()
        worker.connect(server)
    worker.end(work)
    worker.complete(assignment)
    spans = collector.gets(asking.trace_id, "attempt 1")

    assert set(spans) == {"ask", "StartJob", "commit", "queue", "claim", "attempt 1", "work"}
    is_one_tree(spans, "ask")
    below = {name: {span.name for span in spans.values() if span.parent_span_id == spans[name].span_id} for name in spans}
    assert below["ask"] == {"StartJob"}
    assert below["StartJob"] == {"commit", "queue", "claim", "attempt 1"}
    assert below["attempt 1"] == {"work"}
    assert spans["commit"].end_time_unix_nano <= spans["StartJob"].end_time_unix_nano
    if not killed:
        assert spans["queue"].end_time_unix_nano == spans["claim"].start_time_unix_nano
        assert spans["claim"].end_time_unix_nano == spans["attempt 1"].start_time_unix_nano
    assert assignment.tracestate == "vendor=1" == spans["attempt 1"].trace_state
    attempt = attributes(spans["attempt 1"])
    assert attempt == {
        "job.id": job.id, "job.kind": "traced", "worker.id": "worker-1", "job.attempt": 1,
        "job.outcome": "SUCCEEDED", "job.reason": "COMPLETED",
    }
    about = next(about for about, span in collector.spans if span.name == "attempt 1")
    assert about["service.name"] == "longhaul" and about["service.version"]


def test_a_job_that_fails_and_is_retried_is_one_tree_with_all_its_attempts(start_server, collector):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")
    worker = Worker(server, collector)
    options = {"retryPolicy": {"initialInterval": "0.05s"}}

    job = start(server, options=options)
    first = worker.lease()
    worker.fail(first, "BROKEN")
    second = worker.lease()
    worker.complete(second)
    trace = bytes.fromhex(first.traceparent.split("-")[1])
    until(lambda: any(span.name == "attempt 2" for _, span in collector.spans), "the second attempt")
    with collector.changed:
        spans = [span for _, span in collector.spans if span.trace_id == trace]

    attempts = {span.name: span for span in spans if span.name.startswith("attempt")}
    started = next(span for span in spans if span.name == "StartJob")
    assert {span.name: span.span_id.hex() for span in attempts.values()} == {
        "attempt 1": first.traceparent.split("-")[2], "attempt 2": second.traceparent.split("-")[2],
    }
    assert not started.parent_span_id and attributes(started)["job.id"] == job.id
    assert all(span.parent_span_id == started.span_id for span in spans if span is not started)
    failed = attempts["attempt 1"].status
    assert (failed.code, failed.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "BROKEN")
    assert attempts["attempt 2"].status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert [span.name for span in spans].count("queue") == 2


def test_jobs_of_a_batch_and_jobs_that_are_run_again_belong_to_the_call_that_started_them(start_server, collector):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")
    worker = Worker(server, collector)

    one = job_service_pb2.StartJobRequest(kind="traced")
    request = job_service_pb2.BatchStartJobsRequest(requests=[one, one])
    job = server.jobs.BatchStartJobs(request, timeout=WAIT).jobs[0]
    batch = [worker.lease(), worker.lease()]
    for assignment in batch:
        worker.complete(assignment)
    again = server.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=job.id), timeout=WAIT)
    retried = worker.lease()
    worker.complete(retried)
    server.stop()

    by_id = {span.span_id.hex(): span for _, span in collector.spans}
    calls = {span.name: span.span_id for span in by_id.values() if not span.parent_span_id}
    assert set(calls) == {"BatchStartJobs", "RetryJob"}
    above = [by_id[assignment.traceparent.split("-")[2]].parent_span_id for assignment in [*batch, retried]]
    assert above == [calls["BatchStartJobs"], calls["BatchStartJobs"], calls["RetryJob"]]
    assert attributes(by_id[calls["BatchStartJobs"].hex()]) == {"jobs": 2}
    assert attributes(by_id[calls["RetryJob"].hex()])["job.id"] == again.id


def test_a_program_is_told_of_its_attempt(start_server, collector, tmp_path):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")
    client = Program("client", collector)
    told = 'say(result={"traceparent": job["traceparent"], "tracestate": job["tracestate"]})'
    worker = programs.Worker(tmp_path, server.address, told)

    try:
        asking = client.begin("ask")
        job = start(server, "program", traced=traceparent(asking))
        client.end(asking)
        result = programs.result(programs.ended(server, job))
        spans = collector.gets(asking.trace_id, "ask", "StartJob", "commit", "attempt 1")
    finally:
        worker.close()

    is_one_tree(spans, "ask")
    assert result == {"traceparent": traceparent(spans["attempt 1"]), "tracestate": "vendor=1"}


def test_what_its_client_does_not_sample_is_passed_on_and_not_recorded(start_server, collector):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")
    worker, unsampled = Worker(server, collector), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

    start(server, traced=unsampled)
    assignment = worker.lease()
    worker.complete(assignment)
    server.stop()

    assert (assignment.traceparent, collector.spans) == (unsampled, [])


def test_the_last_spans_come_out_when_the_server_stops(start_server, collector):
    server = start_server("--otlp-endpoint", f"http://{collector.address}")

    job = start(server, "simulate", input={"seconds": 0})
    assert watch(server, job)[-1].state_change.state == Job.SUCCEEDED
    server.stop()

    assert {span.name for _, span in collector.spans} == {"StartJob", "commit", "queue", "attempt 1"}


def test_a_collector_that_is_down_costs_nothing_but_the_spans(start_server, collector):
    collector.server.stop(None).wait()
    server = start_server("--otlp-endpoint", f"http://{collector.address}")

    job = start(server, "simulate", input={"seconds": 0})

    assert watch(server, job)[-1].state_change.state == Job.SUCCEEDED
    until(lambda: "spans are lost" in server.log(), "a word about the spans")
    with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=WAIT) as response:
        assert re.search(r"^longhaul_spans_lost_total [1-9]", response.read().decode(), re.MULTILINE)
    assert status(server, job).state == Job.SUCCEEDED


def test_a_protocol_that_it_does_not_speak_costs_the_traces_and_not_the_server(start_server, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.address}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    server = start_server()

    job = start(server, "simulate", input={"seconds": 0})
    assert watch(server, job)[-1].state_change.state == Job.SUCCEEDED
    server.stop()

    assert "OTEL_EXPORTER_OTLP_PROTOCOL is `http/protobuf`" in server.log()
    assert collector.spans == []


@pytest.mark.parametrize(
    ("variable", "name"),
    [("LONGHAUL_OTLP_ENDPOINT", "otlp_endpoint"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")],
)
def test_an_address_that_cannot_be_one_is_an_error_that_names_the_setting(tmp_path, variable, name):
    command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path]
    environment = {**os.environ, variable: "collector:4317"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)

    assert done.returncode == 2
    assert name in done.stderr and "collector:4317" in done.stderr and "http://127.0.0.1:4317" in done.stderr
