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

# A new channel takes a new connection, and not one that another channel left behind.
NEW_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def start(server: str) -> Connection:
    """Starts the process. It wants to be sent `(interval, tokens)` when they change, and ends with the connection.

    Both processes ignore signals from now on. One to the whole group is for the worker, which says what it does on it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=beat, args=(server, theirs)).start()
    return ours


def beat(server: str, worker: Connection) -> None:
    channel = grpc.insecure_channel(server, NEW_CONNECTION)
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
            request = HeartbeatRequest(reports=[Report(lease_token=token) for token in tokens])
            WorkerServiceStub(channel).Heartbeat(request, timeout=interval)
        except grpc.RpcError:
            # Out of reach, perhaps over a connection that leads nowhere. The next beat, which is due soon, has another.
            channel.close()
            channel = grpc.insecure_channel(server, NEW_CONNECTION)
