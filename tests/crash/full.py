"""Fills the disk of the real binary with jobs, and frees it again: completions and cancels fit when new jobs do not.

The disk is preload.c's, of 1 GiB, most of which others use. First starts are refused while what runs goes on; then others use up
the rest, and nothing can be written; then there is space again, and all goes on without a restart. The mutant is a server that
leaves nothing free.
"""

import copy
import json
import pathlib
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bench import SETTINGS, here, main
from client import Server, State, Told, Violation, account, connect, demand, service_pb2, worker_grpc, worker_pb2
from life import check

DISK_BYTES = 1 << 30
# What the server keeps free unless told otherwise, and what it has beside that.
FREE_BYTES_MIN, SPARE_BYTES = 64 << 20, 24 << 20
INPUT_BYTES = 900_000
# So many jobs run while the disk fills up.
RUNNING = 12
# All output is alike, so that one piece may come in place of another.
LAST, PIECE = b"o" * 100_000, b"o" * (256 << 10)
# How long a call waits, and all of them for a disk that is freed. Output waits for space rather than be refused.
SECONDS, SECONDS_MAX = 2, 30
REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


class Full:
    """A server on a disk that is nearly full, and what its clients were told."""

    def __init__(self, settings=()):
        bench = here()
        place = pathlib.Path(tempfile.mkdtemp(dir=bench.place))
        self.binary, self.data, self.log, self.space = bench.binary, place / "top" / "data", place / "log", place / "space"
        (place / "top").mkdir()
        self.leave(FREE_BYTES_MIN + SPARE_BYTES)
        self.environment = bench.environment(place / "top", "/dev/null", CRASH_SPACE=self.space)
        self.settings, self.wishes = (*SETTINGS, *settings), {}
        self.begin()

    def begin(self):
        """Starts the server."""
        self.server = Server(self.binary, self.data, 0, self.environment, self.log, options=self.settings)
        demand(self.server.address, "the server does not start:", self.log.read_text()[-500:])
        self.channel, self.stub = connect(self.server.address)
        self.worker = worker_grpc.WorkerServiceStub(self.channel)

    def end(self):
        """Kills it."""
        self.channel.close()
        self.server.kill()

    def used(self):
        """How many bytes the store has."""
        return sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file() and not path.name.endswith("-shm"))

    def leave(self, free):
        """Others use all but so many bytes."""
        draft = self.space.with_name("space.new")
        draft.write_text(f"{DISK_BYTES} {DISK_BYTES - free - self.used()}")
        draft.rename(self.space)

    def start(self, name, kind, size=100):
        """Starts a job."""
        request = service_pb2.StartJobRequest(kind=kind, request_id=name)
        request.input_json = json.dumps({"text": "x" * size})
        request.labels["wish"] = name
        wish = self.wishes.setdefault(name, Told(request))
        wish.started(self.stub.StartJob(request, timeout=SECONDS))
        return wish

    def fill(self, name):
        """Starts jobs until one is refused; the error, and how many were started."""
        for number in range(500):
            try:
                self.start(f"{name}-{number}", "nobody.serves", INPUT_BYTES)
            except grpc.RpcError as error:
                return error, number
        raise Violation("a full disk takes 500 jobs")

    def lease(self):
        """Claims all that is to run, and accepts it."""
        request = worker_pb2.LeaseJobsRequest(worker_id="elsewhere", kinds=["runs"], max_jobs=100)
        request.lease_duration.FromSeconds(600)
        held = self.worker.LeaseJobs(request, timeout=SECONDS).assignments
        reports = [worker_pb2.Report(lease_token=one.lease_token) for one in held]
        self.worker.Heartbeat(worker_pb2.HeartbeatRequest(reports=reports), timeout=SECONDS)
        return [(one.lease_token, self.wishes[one.job.labels["wish"]]) for one in held]

    def complete(self, token, wish):
        """Sends a last piece of output, and completes. Nothing of it is done twice by a repeat."""
        result = json.dumps({"done": wish.request.labels["wish"]})
        if not wish.output.endswith(LAST):
            request = worker_pb2.AppendOutputRequest(lease_token=token, offset=len(wish.output), data=LAST)
            self.worker.AppendOutput(request, timeout=SECONDS)
            wish.output += LAST
        self.worker.CompleteJob(worker_pb2.CompleteJobRequest(lease_token=token, result_json=result), timeout=SECONDS)
        wish.result = result

    def cancel(self, wish):
        """Cancels."""
        wish.cancel_answered(self.stub.CancelJob(service_pb2.CancelJobRequest(job_id=wish.ticket), timeout=SECONDS))

    def pour(self, token, wish):
        """Sends output until it is refused; how many pieces were taken, and the error."""
        for number in range(1000):
            request = worker_pb2.AppendOutputRequest(lease_token=token, offset=len(wish.output), data=PIECE)
            try:
                self.worker.AppendOutput(request, timeout=SECONDS)
            except grpc.RpcError as error:
                return number, error
            wish.output += request.data
        raise Violation("a full disk takes all output")

    def tries(self, deed):
        """Whether something is refused for want of space."""
        try:
            deed()
        except grpc.RpcError as error:
            demand(error.code() in REFUSED, "an unexpected answer:", error.code(), error.details())
            return True
        return False

    def until_it_works(self, deed):
        """Repeats what is refused for want of space until it is not."""
        until = time.monotonic() + SECONDS_MAX
        while self.tries(deed):
            demand(time.monotonic() < until, "there is space again, and not for this server")
            time.sleep(0.05)


def reason(error):
    """The stable reason of an error, and what belongs to it."""
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason, dict(info.metadata)
    return None, {}


def fill_and_free(seed):
    """The whole of it; how many jobs were taken before one was refused, and how many while nothing could be written."""
    full = Full()
    waiting = [full.start(f"waits-{number}", "nobody.serves") for number in range(5)]
    for number in range(RUNNING):
        full.start(f"runs-{number}", "runs")
    held = full.lease()
    demand(len(held) == RUNNING, len(held), "jobs are handed out")

    # Full: new jobs are refused, and all else goes on.
    error, taken = full.fill("fills")
    why, numbers = reason(error)
    demand(error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and why == "DISK_FULL", "a full disk is", error.code(), why)
    demand(int(numbers["free"]) < int(numbers["limit"]) == FREE_BYTES_MIN, "the refusal says", numbers)
    demand(taken > 5, "only", taken, "jobs are taken")
    full.start("waits-0", "nobody.serves")
    for token, wish in held[: RUNNING // 3]:
        full.complete(token, wish)
    full.cancel(waiting[1])
    full.cancel(held[-1][1])

    # Nothing is left at all: whatever is acknowledged is true, and what is there can be read.
    full.leave(0)
    pieces, error = full.pour(*held[-2])
    demand(error.code() in REFUSED, "output without space is", error.code(), error.details())
    refused = 1
    for token, wish in held[RUNNING // 3 : RUNNING // 2]:
        refused += full.tries(lambda: full.complete(token, wish))
    refused += full.tries(lambda: full.cancel(waiting[2]))
    account(full.stub, full.wishes)

    # There is space again.
    full.leave(2 * FREE_BYTES_MIN)
    full.until_it_works(lambda: full.start("goes-on", "nobody.serves", INPUT_BYTES))
    for token, wish in held[RUNNING // 3 : -1]:
        full.until_it_works(lambda: full.complete(token, wish))
    full.until_it_works(lambda: full.cancel(waiting[3]))
    for wish in full.wishes.values():
        if wish.ticket:
            wish.check(full.stub, wish.ticket)

    # A server that starts on a full disk tells so or works, and what was told is true.
    full.end()
    full.leave(0)
    starts = True
    try:
        full.begin()
        account(full.stub, full.wishes)
        full.end()
    except Violation as violation:
        demand("full" in str(violation), violation)
        starts = False
    check(full.binary, full.data, copy.deepcopy(full.wishes), full.log)
    return taken, refused, starts


def fill_wholly(seed):
    """With nothing kept free, something of what runs cannot end."""
    full = Full(("--free-bytes-min", "0"))
    full.start("waits", "nobody.serves")
    for number in range(RUNNING):
        full.start(f"runs-{number}", "runs")
    held = full.lease()
    error, _ = full.fill("fills")
    demand(error.code() == grpc.StatusCode.UNAVAILABLE, "a start without space is", error.code())
    refused = 0
    for token, wish in held[: RUNNING // 4]:
        refused += full.tries(lambda: full.complete(token, wish))
    full.end()
    return refused


def sweep(workers, options, place):
    """All of it; whether everything is as it must be."""
    mutant = workers.submit(fill_wholly, options.seed)
    taken, refused, starts = workers.submit(fill_and_free, options.seed).result()
    caught = mutant.result()
    print(
        f"crash: a full disk took {taken} jobs, then completions and cancels only; with nothing left {refused} calls were unavailable; "
        f"freed, all went on without a restart; a server {'starts' if starts else 'does not start'} on a full disk; 0 lost; "
        f"where nothing is kept free, {caught} of {RUNNING // 4} completions do not fit"
    )
    return refused > 0 and caught > 0


if __name__ == "__main__":
    sys.exit(main("full", __doc__, sweep))
