"""Workers elsewhere, good and bad ones: by unary calls and by the `Work` stream; some fail, give back, or say nothing more."""

import importlib
import queue

import grpc

from client import job_pb2

worker_pb2 = importlib.import_module("longhaul.v1.worker_service_pb2")
worker_grpc = importlib.import_module("longhaul.v1.worker_service_pb2_grpc")

KIND = "soak.remote"
PATIENCE = 10


def lease(crowd, channel, _, rng):
    """Takes some jobs, and ends them one way or another."""
    stub = worker_grpc.WorkerServiceStub(channel)
    request = worker_pb2.LeaseJobsRequest(worker_id=f"unary-{rng.randrange(10)}", kinds=[KIND], max_jobs=rng.randint(1, 8))
    request.wait.FromMilliseconds(500)
    for given in stub.LeaseJobs(request, timeout=PATIENCE).assignments:
        token = given.lease_token
        report = worker_pb2.Report(lease_token=token, progress=job_pb2.Progress(fraction=0.5, stage="half"))
        stub.Heartbeat(worker_pb2.HeartbeatRequest(reports=[report]), timeout=PATIENCE)
        line = job_pb2.LogLine(level=2, message="half of it is done")
        words = worker_pb2.AppendOutputRequest(lease_token=token, data=b"word " * rng.randint(1, 400), logs=[line])
        try:
            stub.AppendOutput(words, timeout=PATIENCE)
            end(stub, token, rng)
        except grpc.RpcError as error:
            # Cancelled, or taken away meanwhile: the next one is another job's.
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise


def end(stub, token, rng):
    fate = rng.random()
    if fate < 0.7:
        stub.CompleteJob(worker_pb2.CompleteJobRequest(lease_token=token, result_json='{"words": 1}'), timeout=PATIENCE)
    elif fate < 0.85:
        failure = job_pb2.Failure(reason="SOAK", message="it was to fail")
        stub.FailJob(worker_pb2.FailJobRequest(lease_token=token, failure=failure), timeout=PATIENCE)
    elif fate < 0.95:
        stub.ReleaseJob(worker_pb2.ReleaseJobRequest(lease_token=token, reason="another may"), timeout=PATIENCE)
    # The rest is never heard of again, and its lease ends.


def stream(crowd, channel, _, rng):
    """A `Work` stream of some seconds."""
    say, received = queue.Queue(), 0
    slots = rng.randint(1, 6)

    def credit():
        return worker_pb2.WorkRequest(credit=worker_pb2.WorkRequest.Credit(free_slots=slots, received=received))

    hello = worker_pb2.WorkRequest.Hello(worker_id=f"stream-{rng.randrange(10)}", kinds=[KIND])
    say.put(worker_pb2.WorkRequest(hello=hello))
    say.put(credit())
    call = worker_grpc.WorkerServiceStub(channel).Work(iter(say.get, None), timeout=rng.uniform(1, 4))
    try:
        for message in call:
            if crowd.over.is_set():
                break
            if message.WhichOneof("message") != "assignment":
                continue
            received += 1
            token = message.assignment.lease_token
            say.put(worker_pb2.WorkRequest(accept=worker_pb2.WorkRequest.Accept(lease_token=token)))
            # Some assignments are accepted, and the stream breaks before it hears of their end.
            if rng.random() < 0.97:
                done = worker_pb2.CompleteJobRequest(lease_token=token, result_json="{}")
                say.put(worker_pb2.WorkRequest(complete=done))
            say.put(credit())
    finally:
        say.put(None)
        call.cancel()
