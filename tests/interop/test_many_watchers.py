"""Many watch one job, half of them by server-sent events, half by gRPC: all see its end, and no round needs more memory for long.

Each EventSource has a connection of its own, as a browser's has; gRPC's share a few. A round's memory is how far the most that the
kernel has seen of it in the round is above what the server has before anybody has come. `cargo bench --bench speed -- --only
crowd` is the same in large.
"""

import asyncio
import pathlib
import resource
import time

import grpc
import pytest
from client import Job, running, simulate, status
from conftest import WAIT
from longhaul.v1 import job_service_pb2, job_service_pb2_grpc

WATCHERS = 1_000
"""Of each kind."""
LATE_MAX = 5
"""Seconds within which everybody has to see the end of a job."""
GROWTH_MAX = 1.1
"""How many times the memory of one round the next one may need."""
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


def round_of(server, watchers, idle):
    """One round: the seconds after the job's end at which the last of each kind saw it, who missed it, and the rise of memory."""
    job = server.jobs.StartJob(simulate({"seconds": 3600, "steps": 1000}), timeout=WAIT)
    running(server, job)
    forget_peak(server)
    ends = asyncio.run(asyncio.wait_for(watch_to_the_end(server, job, watchers), ROUND_TIME_MAX))
    end = status(server, job).end_time.ToNanoseconds() / 1e9
    return {
        "missed": {kind: times.count(None) for kind, times in ends.items()},
        "late": {kind: max(time for time in times if time) - end for kind, times in ends.items() if any(times)},
        "rise": memory(server, "VmHWM") - idle,
    }


@pytest.fixture
def open_files():
    """Lets us, and what we start, have a file open for each watcher."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def test_all_who_watch_see_the_end_and_another_round_takes_no_more_memory(open_files, start_server):
    server = start_server()
    idle = memory(server, "VmRSS")

    # The first two warm up: the allocator keeps for later what they needed, each in other pieces.
    rounds = [round_of(server, WATCHERS, idle) for _ in range(4)]

    print(f"idle {idle}", *rounds, sep="\n")
    for one in rounds:
        assert one["missed"] == {"EventSource": 0, "Stream": 0}
        assert max(one["late"].values()) < LATE_MAX
    assert rounds[3]["rise"] < GROWTH_MAX * rounds[2]["rise"]
