"""A client for longhaul: starts a job, shows its progress and its output live, and prints its result.

A watch that breaks is opened again after the last message that was seen, so nothing is missed and nothing comes twice.
"""

import json
import os
import sys
import time
import uuid

import grpc
from google.protobuf import json_format
from longhaul.v1.job_pb2 import Job
from longhaul.v1.job_service_pb2 import GetStatusRequest, StartJobRequest, WatchJobRequest
from longhaul.v1.job_service_pb2_grpc import JobServiceStub

SERVER = os.environ.get("LONGHAUL_SERVER", "127.0.0.1:3000")
TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def until_it_works(call):
    """Repeats a call that failed on its way. A job is still started once only, thanks to its request id."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in TRANSIENT:
                raise
            print(f"({error.code().name}, trying again)", file=sys.stderr)
            time.sleep(1)


def watch(jobs: JobServiceStub, job_id: str):
    """Every event of a job to its end, over as many streams as it takes."""
    seen = 0
    while True:
        try:
            for event in jobs.WatchJob(WatchJobRequest(job_id=job_id, after_sequence=seen)):
                seen = event.sequence
                yield event
            return  # A watch ends well only after the end of its job.
        except grpc.RpcError as error:
            if error.code() not in TRANSIENT:
                raise
            print(f"({error.code().name}, watching again after event {seen})", file=sys.stderr)
            time.sleep(1)


def show(event) -> None:
    match event.WhichOneof("event"):
        case "state_change":
            print(f"{Job.State.Name(event.state_change.state):10} {event.state_change.failure.message}")
        case "progress":
            print(f"{event.progress.fraction:9.0%}  {event.progress.stage}")
        case "log":
            print(f"{'log':10} {event.log.message}")
        case "output":
            print(event.output.data.decode(), end="")
        case "output_reset":
            # An attempt failed and the next one begins: what it wrote counts only up to here.
            print(f"(void from byte {event.output_reset.kept_bytes} on)")


def main(text: str) -> int:
    jobs = JobServiceStub(grpc.insecure_channel(SERVER))
    request = StartJobRequest(kind="count-words", input={"text": text}, request_id=str(uuid.uuid4()))
    job = until_it_works(lambda: jobs.StartJob(request, timeout=10))
    print(f"{'job':10} {job.id}")
    for event in watch(jobs, job.id):
        show(event)
    job = until_it_works(lambda: jobs.GetStatus(GetStatusRequest(job_id=job.id), timeout=10))
    if job.HasField("result"):
        print(f"{'result':10} {json.dumps(json_format.MessageToDict(job.result))}")
    return 0 if job.state == Job.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read()))
