"""Moves the system's clock a day on and a day back below the real binary, while it lives and over restarts.

Nothing that waits may end early by the monotonic clock, nor wait for the clock to come back; leases go on; no history has a
negative duration; lists keep the order of creation. Only where a server starts on a clock that is a day on, what was due in that
day is due: to it that looks like a day without a server. The mutant is a machine whose monotonic clock jumps as well.
"""

import collections
import concurrent.futures
import importlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import threading
import time

import grpc

from client import FINAL, Server, State, Violation, all_jobs, check_history, connect, demand, history, main, service_pb2

worker_pb2 = importlib.import_module("longhaul.v1.worker_service_pb2")
worker_grpc = importlib.import_module("longhaul.v1.worker_service_pb2_grpc")

HERE = pathlib.Path(__file__).resolve().parent
DAY = 86_400
SLOTS = 8
LEASE = 3
# Past it a wait was for the clock, not for its time. Far more than a busy machine needs.
LATE = 20
FLAGS = ["--lease-duration", f"{LEASE}s", "--heartbeat-interval", "1s"]

# Something that is to come: what a job is then, and the monotonic time before which it must not be so.
Wait = collections.namedtuple("Wait", "name job comes earliest latest")


def ends(state, reason):
    """A job that has ended so."""
    return lambda job: job and job.state == state and (not reason or job.failure.reason == reason)


class World:
    """A data folder, a machine's clock, and a server after the other."""

    def __init__(self, binary, shim, place, name, mutant=False):
        self.binary, self.folder, self.name = binary, place / name / "data", name
        self.folder.parent.mkdir()
        self.file, self.missed = place / name / "shift", 0
        self.shift(0)
        self.environment = os.environ | {"LD_PRELOAD": str(shim), "CLOCK_SHIFT": str(self.file)}
        self.environment |= {"CLOCK_SHIFT_ALL": "1"} if mutant else {}
        self.waits, self.tickets, self.came, self.began = [], [], 0, time.monotonic()
        self.server, self.channel = None, None
        self.over, self.beats, self.lost = threading.Event(), [], []

    def shift(self, seconds):
        """Sets the clock, so far from the right time."""
        self.shifted = seconds
        # In place: the shim has this very file mapped.
        with open(self.file, "r+b" if self.file.exists() else "w+b") as file:
            file.write(struct.pack("<q", seconds * 10**9))

    def serve(self):
        log = self.folder.with_name("log")
        self.server = Server(self.binary, self.folder, SLOTS, self.environment, log, drain="0s", options=FLAGS)
        demand(self.server.address, "the server does not start")
        self.channel, self.stub = connect(self.server.address)
        self.workers = worker_grpc.WorkerServiceStub(self.channel)

    def restart(self, seconds):
        """Kills the server, moves the clock, and starts another."""
        self.server.kill()
        self.channel.close()
        # What lies between looks like a time without a server.
        self.missed += max(0, seconds - self.shifted)
        self.shift(seconds)
        self.serve()

    def start(self, kind, **options):
        """Starts a job; when that was, and its ticket."""
        work = options.pop("work", None)
        request = service_pb2.StartJobRequest(kind=kind, input_json=json.dumps(work or {}))
        request.options.retry_policy.maximum_attempts = options.pop("attempts", 1)
        for name, seconds in options.items():
            if name == "schedule_time":
                seconds += time.time() + self.shifted
            getattr(request.options, name).FromMicroseconds(int(seconds * 1e6))
        began = time.monotonic()
        job = self.stub.StartJob(request, timeout=10)
        self.tickets.append(job.id)
        return began, job.id

    def expect(self, name, began, job, comes, seconds):
        self.waits.append(Wait(f"{self.name}, {name}", job, comes, began + seconds, time.monotonic() + seconds + LATE))

    def lease(self, role):
        """Starts a job and begins it, as a worker elsewhere that runs no other."""
        kind = f"{role}.{len(self.tickets)}"
        self.start(kind, attempts=2)
        request = worker_pb2.LeaseJobsRequest(worker_id="clock", kinds=[kind])
        request.wait.FromSeconds(5)
        given = self.workers.LeaseJobs(request, timeout=10).assignments[0]
        began = time.monotonic()
        self.beat(given.lease_token)
        return began, given.job.id, given.lease_token

    def beat(self, token):
        directive = self.workers.Heartbeat(worker_pb2.HeartbeatRequest(reports=[{"lease_token": token}]), timeout=5).directives[0]
        demand(directive.action == worker_pb2.Directive.RENEWED, f"{self.name}: a lease was lost that its worker had kept alive")

    def keep_alive(self, token):
        """Heartbeats, over all that happens to the server."""
        while not self.over.wait(LEASE / 6):
            try:
                self.beat(token)
            except (grpc.RpcError, ValueError):
                # No server, or a closed channel: it is being restarted.
                pass
            except Violation as violation:
                self.lost.append(violation)
                return

    def populate(self, early=False):
        """Jobs that wait for something, each in its own way. `early`: what only the wall clock tells may come at any time."""
        def by_wall(seconds):
            return 0 if early else seconds

        def waits(name, seconds, comes, kind="nobody", **options):
            self.expect(name, *self.start(kind, **options), comes, by_wall(seconds))

        waits("a wait for a worker", 6, ends(State.EXPIRED, "START_TIMEOUT"), schedule_to_start_timeout=6)
        waits("a life without a worker", 7, ends(State.FAILED, "JOB_TIMEOUT"), schedule_to_close_timeout=7)
        waits("a schedule", 6, ends(State.SUCCEEDED, ""), "simulate", schedule_time=6, work={"seconds": 0})
        waits("a retention", 8, lambda job: job is None, "simulate", retention=8, work={"seconds": 0})
        began, job, token = self.lease("delayed")
        failure = worker_pb2.FailJobRequest(lease_token=token, failure={"reason": "LATER"})
        failure.retry_delay.FromSeconds(5)
        self.workers.FailJob(failure, timeout=10)
        self.expect("a retry", began, job, ends(State.PENDING, ""), by_wall(5))
        began, job, _ = self.lease("silent")
        self.expect("a silent lease", began, job, ends(State.PENDING, ""), LEASE)
        began, job, token = self.lease("alive")
        beat = threading.Thread(target=self.keep_alive, args=(token,), daemon=True)
        beat.start()
        self.beats.append((beat, job, token))

    def attempt(self):
        """Attempts in the server's slots, which no restart may end: for where there is none."""
        long = {"seconds": 600, "steps": 6000}
        began, job = self.start("simulate", start_to_close_timeout=5, work=long)
        self.expect("an attempt", began, job, ends(State.FAILED, "ATTEMPT_TIMEOUT"), 5)
        began, job = self.start("simulate", progress_timeout=4, work={"seconds": 1, "seed": 1, "chaos": {"hang": 1}})
        self.expect("a silent attempt", began, job, ends(State.FAILED, "STALLED"), 4)

    def new(self, when):
        """A job that nothing hinders, and one that is meant by the clock as it is now."""
        began, job = self.start("simulate", work={"seconds": 0})
        self.expect(f"a new job {when}", began, job, ends(State.SUCCEEDED, ""), 0)
        began, job = self.start("simulate", schedule_time=3, work={"seconds": 0})
        self.expect(f"a new schedule {when}", began, job, ends(State.SUCCEEDED, ""), 3)

    def status(self, job):
        try:
            return self.stub.GetStatus(service_pb2.GetStatusRequest(job_id=job), timeout=10)
        except grpc.RpcError as error:
            demand(error.code() == grpc.StatusCode.NOT_FOUND, self.name, error.code(), error.details())
            return None

    def look(self, until=None):
        """Sees what has come, until some time, or until all has."""
        while self.waits if until is None else time.monotonic() < until:
            for wait in list(self.waits):
                job = self.status(wait.job)
                now = time.monotonic()
                if wait.comes(job):
                    demand(now >= wait.earliest, f"{wait.name} ended {wait.earliest - now:.1f} s early")
                    self.waits.remove(wait)
                    self.came += 1
                elif job is None or job.state in FINAL and wait.name.split(", ")[1] != "a retention":
                    raise Violation(f"{wait.name} ended as {job and (State.Name(job.state), job.failure.reason)}")
                demand(now < wait.latest, f"{wait.name} has not ended {now - wait.earliest:.0f} s after its time")
            demand(not self.lost, *self.lost)
            time.sleep(0.05)

    def end(self):
        """Everything has come: looks at all histories and at the order of all jobs."""
        self.look()
        self.over.set()
        for beat, job, token in self.beats:
            beat.join()
            self.workers.CompleteJob(worker_pb2.CompleteJobRequest(lease_token=token), timeout=10)
            demand(self.status(job).state == State.SUCCEEDED, self.name, job, "was kept alive and has not succeeded")
        jobs = list(all_jobs(self.stub))
        for job in jobs:
            self.check(job, history(self.stub, job.id))
        order = [job.id for job in jobs]
        demand(order == [ticket for ticket in reversed(self.tickets) if ticket in set(order)], self.name, "lists in another order")
        demand(self.tickets == sorted(self.tickets), self.name, "gave ids that do not grow")
        created = [job.create_time.ToNanoseconds() for job in jobs]
        demand(created == sorted(created, reverse=True), self.name, "lists by another time than that of creation")
        self.server.kill()
        self.channel.close()
        return len(jobs)

    def check(self, job, events):
        """No time goes back, and no duration is negative."""
        check_history(job.id, events)
        times = [job.create_time, *(event.event_time for event in events)]
        times = [moment.ToNanoseconds() for moment in times]
        demand(times == sorted(times), self.name, job.kind, job.id, "has a history that goes back in time")
        known = [moment.ToNanoseconds() for moment in (job.create_time, job.start_time, job.end_time) if moment.seconds]
        demand(known == sorted(known), self.name, job.kind, job.id, "is created, begun and ended in another order")
        longest = time.monotonic() - self.began + self.missed
        for duration in (job.queue_duration, job.run_duration):
            demand(0 <= duration.ToNanoseconds() / 1e9 <= longest, self.name, job.id, "has taken", duration, "in", longest, "s")


def live(world):
    """One life, in which the clock jumps."""
    world.serve()
    world.populate()
    world.attempt()
    for seconds, what in [(DAY, "a day on"), (-DAY, "a day back"), (0, "at the right time again")]:
        world.look(time.monotonic() + 0.7)
        world.shift(seconds)
        world.new(what)
    return world.end()


def over_restarts(world):
    """A life at the right time, one on a clock that is a day on, and two when it is right again."""
    world.serve()
    world.populate(early=True)
    world.restart(DAY)
    world.new("a day on")
    world.populate()
    world.look(time.monotonic() + 0.5)
    world.restart(0)
    world.new("a day back")
    world.populate()
    world.look(time.monotonic() + 0.5)
    world.restart(0)
    world.new("in another life")
    world.attempt()
    return world.end()


def run(binary, place):
    shim = place / "shift.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, HERE / "shift.c"], check=True)
    worlds = [World(binary, shim, place, "live"), World(binary, shim, place, "over restarts")]
    mutant = World(binary, shim, place, "mutant", mutant=True)
    try:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            deeds = [pool.submit(deed, world) for deed, world in [(live, worlds[0]), (over_restarts, worlds[1]), (live, mutant)]]
            caught = deeds.pop().exception()
            jobs = [deed.result() for deed in deeds]
    finally:
        # The mutant's world does not come to its end.
        for world in [*worlds, mutant]:
            if world.server:
                world.server.kill()
    demand(isinstance(caught, (Violation, grpc.RpcError)), "the mutant was not caught:", repr(caught))
    print(f"crash: mutant caught, the monotonic clock jumps: {caught}")
    came = sum(world.came for world in worlds)
    print(f"crash: the clock a day on and back, live and over 3 restarts: {sum(jobs)} jobs, {came} waits, none early, none for the clock")


if __name__ == "__main__":
    sys.exit(main("clock", __doc__, lambda options, place: run(options.binary, place)))
