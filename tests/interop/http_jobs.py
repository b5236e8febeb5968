"""Jobs for the tests of the JSON API: how they are started, run and read, and the names of its events."""

import itertools

from client import Job, simulate, status, watch
from conftest import WAIT
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2, worker_service_pb2, worker_service_pb2_grpc

JOBS = "/v1/jobs"
KINDS = itertools.count(1)
NAMES = {
    "state_change": "stateChange", "output": "output", "output_reset": "outputReset", "log": "log", "stage": "stage",
    "progress": "progress", "metrics": "metrics", "queue_update": "queueUpdate", "snapshot": "snapshot",
}


def parsed(text, message):
    """A message of the contract from its JSON."""
    return json_format.Parse(text, message())


def job_of(answer):
    assert answer.header("content-type") == "application/json", (answer.status, answer.body)
    return parsed(answer.body, Job)


def finished(server, **fields):
    """A job that has ended, as gRPC shows it."""
    job = server.jobs.StartJob(simulate(**fields), timeout=WAIT)
    watch(server, job)
    return status(server, job)


def waiting(server, **fields):
    """A job that nobody runs."""
    return server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="nobody-does-this", **fields), timeout=WAIT)


def lease(server, kind):
    """Takes the job of a kind as a worker does; the assignment, and the stub to report with."""
    workers = worker_service_pb2_grpc.WorkerServiceStub(server.channel)
    request = worker_service_pb2.LeaseJobsRequest(worker_id="by-hand", kinds=[kind], max_jobs=1, wait={"seconds": 10})
    [assignment] = workers.LeaseJobs(request, timeout=WAIT).assignments
    return assignment, workers
