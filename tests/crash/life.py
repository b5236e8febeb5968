"""The scripted life of a server: what clients ask of it, and how one finds out later whether what they were told is true."""

import copy
import itertools
import json
import logging
import shutil
import subprocess
import threading
import time

import grpc

from client import (
    FINAL, KEPT, Server, State, Told, Violation, account, connect, demand, service_pb2, worker_grpc, worker_pb2,
)

# So much that the log is moved into the database while the server runs.
LARGE_JOBS, LARGE_BYTES = 20, 900_000
# More calls of one life than this are not refused by one failed flush.
REFUSED_MAX = 200
# After so many something is done about it, if that was the plan.
PATIENCE = 5
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
UNREADABLE = "Exception deserializing response!"
# gRPC logs why, where anybody listens.
logging.basicConfig(level=logging.WARNING)


class Gone(Exception):
    """The server is not there any more."""


class Client:
    """Starts, watches and cancels, one after the other, and remembers what it was told."""

    def __init__(self, server, wishes):
        self.server, self.wishes, self.refused, self.unreadable = server, wishes, 0, 0
        self.channel, self.stub = connect(server.address)
        self.worker = worker_grpc.WorkerServiceStub(self.channel)

    def unknown(self, error):
        """A call ended without an answer: all is well if the server is gone, or says so in the one way it may."""
        # The client's own words for an answer that it cannot read. That was seen once, from a server that was well, and is not
        # explained: it is shown with its cause, and repeated once.
        if error.details() == UNREADABLE:
            self.unreadable += 1
            print("crash: the client cannot read an answer; its cause is logged above", flush=True)
        known = error.code() in UNKNOWN or error.details() == UNREADABLE and self.unreadable == 1
        demand(known, "an unexpected answer:", error.code(), error.details())
        # A server that dies closes its connections a little before its parent can tell.
        time.sleep(0.02)
        if self.server.process.poll() is not None:
            raise Gone from error
        self.refused += 1
        if self.refused == PATIENCE:
            self.server.remedy()
        demand(self.refused < REFUSED_MAX, "a server that is alive refuses for ever:", error.details())

    def call(self, method, request, absent=False):
        """Repeats a call of unknown outcome, as the contract says. Nothing where the job is `absent`, if it may be."""
        while True:
            try:
                return method(request, timeout=5)
            except grpc.RpcError as error:
                if absent and error.code() == grpc.StatusCode.NOT_FOUND:
                    return None
                self.unknown(error)

    def start(self, name, kind="simulate", request_id="", attempts=3, brief=False, **work):
        """Starts a job. Where it has no request id, a repeat after an unknown outcome is another wish."""
        request = service_pb2.StartJobRequest(kind=kind, input_json=json.dumps(work), request_id=request_id)
        request.options.retry_policy.maximum_attempts = attempts
        if brief:
            request.options.retention.FromMilliseconds(0)
        request.options.retry_policy.initial_interval.FromMilliseconds(1)
        for number in itertools.count():
            request.labels["wish"] = name if request_id else f"{name}.{number}"
            wish = self.wishes.setdefault(request.labels["wish"], Told(copy.deepcopy(request)))
            wish.may_be_gone = brief
            try:
                wish.started(self.stub.StartJob(request, timeout=5))
                return wish
            except grpc.RpcError as error:
                self.unknown(error)

    def watch(self, wish):
        """Watches a job to its end."""
        cursor, ended = 0, False
        while not ended:
            request = service_pb2.WatchJobRequest(job_id=wish.ticket, after_sequence=cursor)
            try:
                for event in self.stub.WatchJob(request, timeout=20):
                    if event.WhichOneof("event") in KEPT:
                        demand(event.sequence == cursor + 1, wish.ticket, "shows", event.sequence, "after", cursor)
                        wish.saw(event)
                    cursor = event.sequence
                ended = True
            except grpc.RpcError as error:
                self.unknown(error)
        job = self.call(self.stub.GetStatus, service_pb2.GetStatusRequest(job_id=wish.ticket))
        demand(job.state in FINAL, "a watch ended before its job, which is", job.state)
        wish.shown(job, now=True)

    def cancel(self, wish):
        """Cancels a job."""
        wish.cancel_answered(self.call(self.stub.CancelJob, service_pb2.CancelJobRequest(job_id=wish.ticket)))

    def delete(self, wish):
        """Deletes a job."""
        wish.may_be_gone = True
        self.call(self.stub.DeleteJob, service_pb2.DeleteJobRequest(job_id=wish.ticket), absent=True)
        wish.gone()

    def outlive(self, wish):
        """Waits until a job is forgotten that is not kept after its end."""
        request, until = service_pb2.GetStatusRequest(job_id=wish.ticket), time.monotonic() + 20
        while self.call(self.stub.GetStatus, request, absent=True):
            demand(time.monotonic() < until, wish.ticket, "is not forgotten")
            time.sleep(0.002)
        wish.gone()

    def work(self, wish):
        """Does a job as a worker elsewhere: claims and accepts it, sends its output, and completes it."""
        wanted = worker_pb2.LeaseJobsRequest(worker_id="elsewhere", kinds=[wish.request.kind])
        wanted.wait.FromSeconds(3)
        assignments, until = [], time.monotonic() + 20
        # One that was handed out without an answer is free again after a second.
        while not assignments:
            demand(time.monotonic() < until, wish.ticket, "is not handed out")
            assignments = self.call(self.worker.LeaseJobs, wanted).assignments
        token = assignments[0].lease_token
        self.call(self.worker.Heartbeat, worker_pb2.HeartbeatRequest(reports=[worker_pb2.Report(lease_token=token)]))
        for piece in (b"some ", b"output"):
            request = worker_pb2.AppendOutputRequest(lease_token=token, offset=len(wish.output), data=piece)
            request.logs.add(message="a piece") if not wish.output else None
            self.call(self.worker.AppendOutput, request)
            wish.output += piece
        result = json.dumps({"wish": wish.request.labels["wish"]})
        self.call(self.worker.CompleteJob, worker_pb2.CompleteJobRequest(lease_token=token, result_json=result))
        wish.result = result


class Backup:
    """A copy of the store that is made amid a life by the binary, in an environment of its own."""

    def __init__(self, binary, data, file, environment=None, is_cut=False, may_fail=False):
        self.command = [str(binary), "backup", str(file), "--data-dir", str(data)]
        self.file, self.environment, self.is_cut, self.may_fail = file, environment, is_cut, may_fail
        # What had been told before it began, and whether it was told that it is made.
        self.known, self.is_made = None, False

    def make(self, wishes):
        """Makes it."""
        self.known = copy.deepcopy(wishes)
        made = subprocess.run(self.command, env=self.environment, capture_output=True, text=True, timeout=60)
        self.is_made = made.returncode == 0
        if not self.is_made and not self.may_fail:
            demand(self.is_cut and made.returncode < 0, "no backup is made:", made.stderr)
            raise Gone

    def check(self, binary, left, wishes):
        """What a disk has left of it is whole, or not there where nobody was told that it is made."""
        file = left / self.file.name
        demand(file.exists() or not self.is_made, "the backup is lost")
        if not file.exists():
            return
        then = {name: Told(wish.request) for name, wish in wishes.items()} | copy.deepcopy(self.known)
        for name, wish in then.items():
            wish.may_be_gone |= wishes[name].may_be_gone
        store = left.parent / "restored" / "store"
        store.mkdir(parents=True)
        shutil.copy(file, store / "longhaul.db")
        check(binary, store.parent, then, left.parent / "log", "the backup")


def live(server, wishes, life, backup=None):
    """The script, with names of its own for each `life`. It ends early where the server does. Returns how many calls were refused."""
    client, crowd = Client(server, wishes), []
    try:
        for number in range(LARGE_JOBS if life == "large" else 0):
            client.start(f"large-{number}", kind="nobody.serves", text="x" * LARGE_BYTES)
        quick = client.start(f"{life}-quick", prompt="one two three", seconds=0, steps=2)
        client.watch(quick)
        named = client.start(f"{life}-named", request_id=f"{life}-a", prompt="four five", seconds=0, steps=1)
        client.start(f"{life}-named", request_id=f"{life}-a", prompt="four five", seconds=0, steps=1)
        waits = client.start(f"{life}-waits", kind="nobody.serves")
        client.cancel(waits)
        brief = client.start(f"{life}-brief", brief=True, prompt="gone", seconds=0, steps=1)
        runs = client.start(f"{life}-runs", request_id=f"{life}-b", prompt="six", seconds=60, steps=2000)
        crowd = [
            threading.Thread(target=together, args=(client, f"{life}-crowd-{number}", bool(number % 2)))
            for number in range(6)
        ]
        for thread in crowd:
            thread.start()
        client.cancel(runs)
        client.work(client.start(f"{life}-remote", kind=f"remote.{life}", text="elsewhere"))
        for thread in crowd:
            thread.join()
        if backup:
            backup.make(wishes)
        deleted = client.start(f"{life}-deleted", request_id=f"{life}-c", kind="nobody.serves")
        client.cancel(deleted)
        client.delete(deleted)
        fails = client.start(
            f"{life}-fails", prompt="seven eight", seconds=0, steps=2, attempts=2, chaos={"error": 1}, seed=3
        )
        client.watch(fails)
        client.watch(runs)
        client.watch(named)
        client.outlive(brief)
        client.start(f"{life}-last", prompt="nine", seconds=60)
    except Gone:
        pass
    for thread in crowd:
        thread.join()
    client.channel.close()
    return client.refused


def together(client, name, named):
    """One of several who start jobs at the same time."""
    try:
        client.start(name, kind="nobody.serves", request_id=name if named else "")
    except Gone:
        pass


def check(binary, folder, wishes, log, what="the store"):
    """The store opens, and everything that was told is true."""
    server = Server(binary, folder, 0, log=log)
    demand(server.address, what, "does not open")
    channel, stub = connect(server.address)
    try:
        found = account(stub, wishes)
        for name, ticket in found.items():
            forgettable(wishes[name], lambda: wishes[name].check(stub, ticket))
        for wish in wishes.values():
            if wish.request.request_id and wish.ticket:
                forgettable(wish, lambda: wish.started(stub.StartJob(wish.request, timeout=10)))
        stub.StartJob(service_pb2.StartJobRequest(kind="nobody.serves"), timeout=10)
    except grpc.RpcError as error:
        raise Violation(f"the server answers {error.code()}: {error.details()}") from error
    finally:
        channel.close()
        server.kill()


def forgettable(wish, deed):
    """Does what may find that the job is forgotten, if that can be."""
    try:
        deed()
        demand(not wish.is_gone, wish.ticket, "is there again")
    except grpc.RpcError as error:
        if not (wish.may_be_gone and error.code() == grpc.StatusCode.NOT_FOUND):
            raise
