"""Keeps a worker's leases alive, from a process of its own.

Work that holds Python's global lock for a while would silence a thread, and the server would take the worker for dead.
The process is spawned, not forked: gRPC does not survive a fork.
"""

import multiprocessing
import signal
import time
from multiprocessing.connection import Connection

import grpc
from longhaul.v1.worker_service_pb2 import HeartbeatRequest, Report
from longhaul.v1.worker_service_pb2_grpc import WorkerServiceStub


def start(server: str) -> Connection:
    """Starts the process. It wants to be sent `(interval, tokens)` when they change, and ends with the connection."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=beat, args=(server, theirs)).start()
    return ours


def beat(server: str, worker: Connection) -> None:
    # A signal to the whole group is for the worker, which still has jobs to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stub = WorkerServiceStub(grpc.insecure_channel(server))
    interval, tokens, next_beat = 1.0, [], 0.0
    while True:
        try:
            if worker.poll(max(0.0, next_beat - time.monotonic())):
                interval, tokens = worker.recv()
                continue
        except EOFError:  # The worker has ended, one way or another.
            return
        next_beat = time.monotonic() + interval
        try:
            # The answer says which jobs to stop. The worker is told so over its stream as well.
            stub.Heartbeat(HeartbeatRequest(reports=[Report(lease_token=token) for token in tokens]), timeout=interval)
        except grpc.RpcError:
            pass  # Out of reach, perhaps for a moment. The next one is due soon.
