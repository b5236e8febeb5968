"""What the crash tests share: generated stubs, a server to start and kill, and what must be true for ever of a job.

The stubs are generated into a temporary folder, so nothing generated lies in the repository.
"""

import argparse
import atexit
import importlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading

import grpc
import grpc_tools
from google.protobuf import json_format
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def generate(folder, root=ROOT):
    """Generates stubs for every proto of the contract into `folder`, and makes them importable."""
    protos = [str(path) for path in (root / "proto").rglob("*.proto")]
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    paths = [f"-I{root / 'proto'}", f"-I{well_known}"]
    if protoc.main(["protoc", *paths, f"--python_out={folder}", f"--grpc_python_out={folder}", *protos]):
        raise RuntimeError("protoc failed")
    sys.path.insert(0, str(folder))


_stubs = tempfile.mkdtemp(prefix="longhaul-stubs-")
atexit.register(shutil.rmtree, _stubs, ignore_errors=True)
generate(_stubs)
job_pb2 = importlib.import_module("longhaul.v1.job_pb2")
service_pb2 = importlib.import_module("longhaul.v1.job_service_pb2")
service_grpc = importlib.import_module("longhaul.v1.job_service_pb2_grpc")
worker_pb2 = importlib.import_module("longhaul.v1.worker_service_pb2")
worker_grpc = importlib.import_module("longhaul.v1.worker_service_pb2_grpc")

State = job_pb2.Job.State
FINAL = {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED}
KEPT = {"state_change", "output", "output_reset", "log", "stage"}


class Reading:
    """A channel that shows what it cannot read: gRPC itself says no more than that."""

    def __init__(self, channel):
        self.channel = channel

    def __getattr__(self, kind):
        make = getattr(self.channel, kind)

        def call(method, response_deserializer, **rest):
            def read(data):
                try:
                    return response_deserializer(data)
                except BaseException as error:
                    print(f"crash: {method} answered {len(data)} bytes that cannot be read: {error!r}: {data.hex()}", flush=True)
                    raise

            return make(method, response_deserializer=read, **rest)

        return call


def connect(address):
    """A connection of its own, and the stub on it."""
    # Uncompressed: twice a client has got the bytes of a whole gzip member where a message was to be, both while its call was
    # being ended. It seems that gRPC 1.85 then hands out what came as it is.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.compression_enabled_algorithms_bitset", 1)]
    channel = grpc.insecure_channel(address, options=options)
    return channel, service_grpc.JobServiceStub(Reading(channel))


class Server:
    """The real binary on a data folder; `environment` is put in place of ours, `options` are more of its flags."""

    def __init__(self, binary, folder, slots, environment=None, log=None, drain="2s", options=()):
        command = [str(binary), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(folder)]
        command += ["--slots", str(slots), "--worker-threads", "2", "--log", "warn", "--drain-timeout", drain]
        command += map(str, options)
        self.log = open(log or "/dev/null", "ab")
        # What to do about it when it has refused for long.
        self.remedy = lambda: None
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True
        )
        watchdog = threading.Timer(60, self.process.kill)
        watchdog.start()
        words = self.process.stdout.readline().split()
        watchdog.cancel()
        # None: it died before it served.
        self.address = words[-1] if words[:2] == ["longhaul", "listening"] else None

    def wait(self, timeout=60):
        """Waits for its end; the exit code, negative for a signal."""
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.log.close()

    def kill(self):
        """The end without any notice."""
        self.process.kill()
        return self.wait()

    def stop(self):
        """The end in good order."""
        self.process.terminate()
        return self.wait()


class Violation(Exception):
    """Something that the contract rules out."""


def demand(holds, *what):
    """Raises what is wrong unless it `holds`."""
    if not holds:
        raise Violation(" ".join(map(str, what)))


def pages(call, request):
    """Everything of a list, page after page."""
    while True:
        page = call(request, timeout=30)
        if isinstance(page, service_pb2.ListJobsResponse):
            yield from page.jobs
            request.page_token = page.next_page_token
            more = page.next_page_token
        else:
            yield from page.events
            request.after_sequence = more = page.next_after_sequence
        if not more:
            return


def all_jobs(stub):
    """Every job there is."""
    return pages(stub.ListJobs, service_pb2.ListJobsRequest(page_size=1000))


def history(stub, job):
    """Every kept event of a job."""
    return list(pages(stub.ListJobEvents, service_pb2.ListJobEventsRequest(job_id=job, page_size=1000)))


def check_history(job, events):
    """A history is 1..n, each step begins where the last one ended, and what is final comes once and last.

    Returns the main output that is valid at its end.
    """
    state, output, attempt = State.STATE_UNSPECIFIED, b"", 0
    for number, event in enumerate(events, 1):
        what = event.WhichOneof("event")
        demand(event.sequence == number, job, "has event", event.sequence, "where", number, "belongs")
        demand(what in KEPT, job, "keeps a", what)
        demand(event.job_id == job, job, "has an event of", event.job_id)
        demand(state not in FINAL, job, "goes on after its end with", what)
        demand(event.attempt >= attempt, job, "goes back to attempt", event.attempt)
        attempt = event.attempt
        if what == "state_change":
            change = event.state_change
            demand(change.previous_state == state, job, "leaves", change.previous_state, "but is", state)
            state = change.state
        output = add_output(job, output, event)
    return output


def add_output(job, output, event):
    """What is valid of a job's main output after `event`."""
    what = event.WhichOneof("event")
    if what == "output" and not event.output.channel:
        demand(event.output.offset == len(output), job, "writes at", event.output.offset, "after", len(output))
        return output + event.output.data
    if what == "output_reset" and not event.output_reset.channel:
        demand(event.output_reset.kept_bytes <= len(output), job, "keeps more than it has")
        return output[: event.output_reset.kept_bytes]
    return output


class Told:
    """A job that was asked for, and what clients were told about it."""

    def __init__(self, request):
        self.request = request
        self.ticket = None
        # Its state and sequence at the end, once that was shown.
        self.outcome = None
        self.cancelled = False
        # Kept events as a watcher saw them, byte for byte.
        self.seen = {}
        # What its worker was told to be durable: the output so far, and the result as JSON.
        self.output, self.result = b"", None
        # Whether it is forgotten: it may be once that was asked for, it is for ever once that was answered.
        self.may_be_gone = self.is_gone = False

    def started(self, job):
        """A start was answered."""
        demand(job.labels["wish"] == self.request.labels["wish"], self.request.labels, "is answered by", job.labels)
        demand(self.ticket in (None, job.id), self.request.request_id, "has jobs", self.ticket, "and", job.id)
        self.ticket = job.id
        self.shown(job)

    def cancel_answered(self, job):
        """A cancel was answered."""
        demand(job.state == State.CANCELLING or job.state in FINAL, "a cancelled job is", job.state)
        self.shown(job)
        self.cancelled = job.state in (State.CANCELLING, State.CANCELLED)

    def gone(self):
        """It was answered that the job is forgotten."""
        self.may_be_gone = self.is_gone = True

    def shown(self, job, now=False):
        """A job was shown, as it is `now` or perhaps as it was while another client was told more."""
        if job.state in FINAL:
            outcome = (job.state, job.sequence)
            demand(self.outcome in (None, outcome), job.id, "ended as", self.outcome, "and as", outcome)
            demand(not self.cancelled or job.state == State.CANCELLED, job.id, "was cancelled and is", job.state)
            self.outcome = outcome
        elif now:
            demand(not self.outcome, job.id, "ended as", self.outcome, "and is", job.state)
            demand(not self.cancelled or job.state == State.CANCELLING, job.id, "was cancelled and is", job.state)
        demand(not now or job.sequence >= max(self.seen, default=0), job.id, "has lost events at its end")

    def saw(self, event):
        """A watch showed a kept event."""
        data = event.SerializeToString(deterministic=True)
        known = self.seen.setdefault(event.sequence, data)
        demand(known == data, event.job_id, "shows another event", event.sequence, "than before")

    def check(self, stub, ticket):
        """Compares all of that with what is kept now; the job, and its valid output."""
        events = history(stub, ticket)
        output = check_history(ticket, events)
        job = stub.GetStatus(service_pb2.GetStatusRequest(job_id=ticket), timeout=30)
        self.shown(job, now=True)
        demand(output.startswith(self.output), ticket, "has the output", output, "of", self.output)
        if self.result is not None:
            result = json_format.MessageToDict(job.result) if job.state == State.SUCCEEDED else None
            demand(result == json.loads(self.result), ticket, "is", job.state, "with", result, "not", self.result)
        demand(job.sequence >= len(events), ticket, "is at", job.sequence, "of", len(events))
        for sequence, data in self.seen.items():
            demand(sequence <= len(events), ticket, "has lost event", sequence)
            kept = events[sequence - 1].SerializeToString(deterministic=True)
            demand(kept == data, ticket, "shows another event", sequence, "than a watcher saw")
        if job.state in FINAL:
            demand(job.sequence == len(events), ticket, "is at", job.sequence, "of", len(events))
            last = events[-1].state_change.state
            demand(last == job.state, ticket, "is", job.state, "and its last event says", last)
        return job, output


def account(stub, wishes):
    """Lists all jobs, and accounts for each: those acknowledged are there, and the others are starts of unknown outcome.

    `wishes` are found by what stands in their label. Returns the ticket of each.
    """
    found = {}
    for job in all_jobs(stub):
        wish = job.labels["wish"]
        demand(wish in wishes, job.id, "was wished for by nobody")
        demand(wish not in found, "wish", wish, "has jobs", found.get(wish), "and", job.id)
        found[wish] = job.id
        if wishes[wish].ticket == job.id:
            wishes[wish].shown(job, now=True)
    for name, wish in wishes.items():
        if wish.is_gone:
            demand(name not in found, wish.ticket, "is there again")
        elif wish.ticket and not (wish.may_be_gone and name not in found):
            demand(found.get(name) == wish.ticket, wish.ticket, "is lost; there is", found.get(name))
    return found


def main(name, about, run, **numbers):
    """Runs a test of this folder: `run(options, place)` raises what is wrong. `numbers` are options with their defaults. Returns the
    exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    for number, default in numbers.items():
        parser.add_argument(f"--{number}", type=int, default=default)
    options = parser.parse_args()
    print(f"crash: seed {options.seed}", flush=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix=f"longhaul-{name}-"))
    try:
        run(options, place)
    except (Violation, grpc.RpcError) as violation:
        print(f"crash: {name} FAILED with seed {options.seed}: {violation}\ncrash: what is left lies in {place}")
        return 1
    shutil.rmtree(place)
    return 0
