"""Many watch one job, half of them by server-sent events, half by gRPC: all see its end, and a second round needs no more memory.

    python tests/interop/many_watchers.py --watchers 5000

Each EventSource has a connection of its own, as a browser's has; gRPC's share a few. The server's memory is the most that the
kernel has seen of it in a round.
"""

import argparse
import asyncio
import json
import pathlib
import resource
import tempfile
import time

import grpc
from client import Job, running, simulate, status
from conftest import WAIT, Server
from longhaul.v1 import job_service_pb2, job_service_pb2_grpc

STREAMS_PER_CHANNEL = 500
OPENED_AT_ONCE = 100
ROUND_TIME_MAX = 300
"""Seconds after which a round is stuck."""
INTERVAL = 5
"""Seconds between two latest-wins events of one watcher."""


class EventSource(asyncio.Protocol):
    """One connection that reads a watch."""

    def __init__(self, address, job):
        self.request = f"GET /v1/jobs/{job.id}:watch?minimumInterval={INTERVAL}s HTTP/1.1\r\nhost: {address}\r\n\r\n".encode()
        self.opened, self.closed = asyncio.Future(), asyncio.Future()
        self.buffer, self.end = b"", None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        *frames, self.buffer = (self.buffer + data).split(b"\n\n")
        for frame in frames:
            if b"event: snapshot\n" in frame and not self.opened.done():
                self.opened.set_result(None)
            if b"event: stateChange\n" in frame and b'"state":"CANCELLED"' in frame:
                self.end = time.time()
        # The last chunk. The connection would stay open for another request.
        if self.buffer.endswith(b"\r\n0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, error):
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("it ended before it began"))
        self.closed.set_result(None)


class Stream:
    """One call of WatchJob."""

    def __init__(self, stub, job):
        request = job_service_pb2.WatchJobRequest(job_id=job.id, minimum_interval={"seconds": INTERVAL})
        self.call = stub.WatchJob(request)
        self.opened, self.end = asyncio.Future(), None
        self.closed = asyncio.ensure_future(self.read())

    async def read(self):
        try:
            async for message in self.call:
                if not self.opened.done():
                    self.opened.set_result(None)
                if message.state_change.state == Job.CANCELLED:
                    self.end = time.time()
        except grpc.RpcError as error:
            if not self.opened.done():
                self.opened.set_exception(error)


def memory(server, name):
    """A figure of the server's memory, in bytes."""
    lines = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def forget_peak(server):
    """Lets the kernel count the most memory anew."""
    pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


async def watch_to_the_end(server, job, watchers):
    """Opens all watches, ends the job, and returns the moments at which each saw the end; nothing for who did not."""
    host, port = server.address.split(":")
    gate, loop = asyncio.Semaphore(OPENED_AT_ONCE), asyncio.get_running_loop()
    count = -(-watchers // STREAMS_PER_CHANNEL)
    # Channels to one address would share a connection otherwise, and each takes a thousand streams at most.
    channels = [grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(count)]
    stubs = [job_service_pb2_grpc.JobServiceStub(channel) for channel in channels]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))

    async def event_source(_):
        async with gate:
            _, source = await loop.create_connection(lambda: EventSource(server.address, job), host, int(port))
            await source.opened
            return source

    async def stream(number):
        async with gate:
            stream = Stream(stubs[number % count], job)
            await stream.opened
            return stream

    readers = await asyncio.gather(*(make(n) for n in range(watchers) for make in (event_source, stream)))
    request = job_service_pb2.CancelJobRequest(job_id=job.id)
    await loop.run_in_executor(None, lambda: server.jobs.CancelJob(request, timeout=WAIT))
    await asyncio.gather(*(reader.closed for reader in readers))
    for channel in channels:
        await channel.close()
    return {kind.__name__: [reader.end for reader in readers if isinstance(reader, kind)] for kind in (EventSource, Stream)}


def round_of(server, watchers):
    """One round: the seconds after the job's end at which the last of each kind saw it, who missed it, and the peak of memory."""
    job = server.jobs.StartJob(simulate({"seconds": 3600, "steps": 1000}), timeout=WAIT)
    running(server, job)
    forget_peak(server)
    ends = asyncio.run(asyncio.wait_for(watch_to_the_end(server, job, watchers), ROUND_TIME_MAX))
    end = status(server, job).end_time.ToNanoseconds() / 1e9
    return {
        "missed": {kind: times.count(None) for kind, times in ends.items()},
        "late": {kind: max(time for time in times if time) - end for kind, times in ends.items() if any(times)},
        "peak": memory(server, "VmHWM"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=5_000, help="of each kind")
    watchers = parser.parse_args().watchers
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < watchers + 1_000:
        raise SystemExit(f"{watchers} connections need more than the {most} files that may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(pathlib.Path(folder))
        try:
            rounds = []
            for _ in range(2):
                began = time.monotonic()
                rounds.append(round_of(server, watchers))
                print(json.dumps({**rounds[-1], "seconds": round(time.monotonic() - began, 1)}), flush=True)
        finally:
            server.stop()
    first, second = (one["peak"] for one in rounds)
    late = max(late for one in rounds for late in one["late"].values())
    missed = sum(missed for one in rounds for missed in one["missed"].values())
    print(f"2 × {watchers} watchers: {missed} missed the end, the last saw it {late:.2f} s late; memory × {second / first:.3f}")
    return missed > 0 or late > 5 or second > 1.1 * first


if __name__ == "__main__":
    raise SystemExit(main())
