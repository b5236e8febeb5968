"""Restarts the real binary 60 times, 300 ms apart, while many jobs wait behind few slots, and looks at every history in the end.

All jobs may be attempted once. So a job that only waited must not have an attempt from before it ran, one whose attempt only a
restart ended must not have lost its only one, and what a worker elsewhere holds must not be begun again. The one job that may
fail is longer than a server lives, and fails after ten such attempts and one.
"""

import collections
import copy
import importlib
import json
import random
import sys
import threading
import time

import grpc

from client import FINAL, Server, State, Violation, all_jobs, check_history, connect, demand, history, main, service_pb2

worker_pb2 = importlib.import_module("longhaul.v1.worker_service_pb2")
worker_grpc = importlib.import_module("longhaul.v1.worker_service_pb2_grpc")

SLOTS = 2
LIFE = 0.3
KINDS = ["simulate", "elsewhere"]
# Of each kind, jobs that have their turn last, and how many others wait at least before the calm.
PATIENT, WAITING = 10, 25
# The contract's bound of attempts that only a stop of the server ended.
RESTARTS_MAX = 10
FLAGS = ["--accept-timeout", "1s", "--lease-duration", "30s"]


class Place:
    """Where the server is now, and what clients elsewhere did."""

    def __init__(self):
        self.address, self.over = None, threading.Event()
        self.started, self.accepted, self.violations = {}, collections.Counter(), []

    def client(self, deed, *arguments):
        """A thread of a client's, which goes on until its deed ends or something is wrong."""
        def act():
            try:
                deed(*arguments)
            except Violation as violation:
                self.violations.append(str(violation))

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def again(self, deed):
        """Repeats a deed with a connection to whoever serves now, until it is answered, or everything is over."""
        while not self.over.is_set():
            address = self.address
            channel, stub = connect(address)
            try:
                while address == self.address and not self.over.is_set():
                    try:
                        return deed(channel, stub)
                    except grpc.RpcError as error:
                        unknown = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                        demand(unknown, "an unexpected answer:", error.code(), error.details())
                        time.sleep(0.02)
            finally:
                channel.close()
        return None

    def start(self, request):
        job = self.again(lambda _, stub: stub.StartJob(request, timeout=5))
        if job:
            self.started[job.id] = request


def wish(number, kind, priority, rng):
    """A short job, for the server's slots or for a worker elsewhere."""
    request = service_pb2.StartJobRequest(kind=kind, request_id=f"wish-{number}")
    if kind == "simulate":
        request.input_json = json.dumps({"prompt": "one two", "seconds": rng.uniform(0, 0.15), "steps": 2})
    request.options.retry_policy.maximum_attempts = 1
    request.options.priority = priority
    return request


def work(place, rng):
    """A worker elsewhere that takes a while, and repeats its reports until they are answered."""
    request = worker_pb2.LeaseJobsRequest(worker_id="elsewhere", kinds=["elsewhere"], max_jobs=2)
    request.wait.FromMilliseconds(200)
    while not place.over.is_set():
        taken = place.again(lambda channel, _: worker_grpc.WorkerServiceStub(channel).LeaseJobs(request, timeout=2))
        for given in taken.assignments if taken else []:
            place.accepted[given.job.id] += 1
            report(place, "Heartbeat", worker_pb2.HeartbeatRequest(reports=[{"lease_token": given.lease_token}]))
            time.sleep(rng.uniform(0, 0.5))
            report(place, "CompleteJob", worker_pb2.CompleteJobRequest(lease_token=given.lease_token))


def report(place, method, request):
    """A report; that its lease is over it may only hear where it was late to accept."""
    try:
        place.again(lambda channel, _: getattr(worker_grpc.WorkerServiceStub(channel), method)(request, timeout=2))
    except Violation as violation:
        demand("FAILED_PRECONDITION" in str(violation), violation)


def attempts(events):
    """How each attempt ended: the state, and why."""
    ends, runs = [], False
    for event in events:
        if event.WhichOneof("event") == "state_change":
            change = event.state_change
            if runs:
                ends.append((change.state, change.reason))
            runs = change.state == State.RUNNING
    return ends


def check(job, events, request, accepted):
    """One job at the end of all: how many of its attempts a restart ended."""
    check_history(job.id, events)
    ends = attempts(events)
    restarts = sum(reason == "SERVER_RESTART" for _, reason in ends)
    demand(job.attempt == len(ends), job.id, "is at attempt", job.attempt, "and has begun", len(ends))
    demand(job.state in FINAL, job.id, "has not ended")
    demand(job.counted_attempts == len(ends) - restarts, job.id, "counts", job.counted_attempts, "of", ends)
    if job.state == State.FAILED and restarts == RESTARTS_MAX + 1:
        demand("stubborn" in request.labels, job.id, "was restarted too often, and is short")
        return restarts
    demand(job.state == State.SUCCEEDED, job.id, "is", State.Name(job.state), "after", ends)
    demand(ends[-1] == (State.SUCCEEDED, "COMPLETED"), job.id, "ends with", ends[-1])
    demand(all(end == (State.PENDING, "SERVER_RESTART") for end in ends[:-1]), job.id, "was attempted once at most:", ends)
    if request.kind == "elsewhere":
        demand(restarts == 0, job.id, "was with a worker elsewhere, and was begun again", restarts, "times")
        demand(accepted[job.id] > 0, job.id, "has an attempt that nobody began")
    return restarts


def most_at_once(histories):
    """How many attempts there were at the same time."""
    steps = []
    for events in histories:
        runs = False
        for event in events:
            if event.WhichOneof("event") == "state_change":
                now = event.state_change.state == State.RUNNING
                steps.append((event.event_time.ToNanoseconds(), now - runs))
                runs = now
    at_once = most = 0
    for _, step in sorted(steps):
        at_once += step
        most = max(most, at_once)
    return most


def only_waited(job, restarts):
    """Whether a job was there before the first restart, and began after the last."""
    return job.create_time.ToNanoseconds() / 1e9 < restarts[0] and job.start_time.ToNanoseconds() / 1e9 > restarts[-1]


def check_all(found, started, accepted, restarts):
    """Every job: how many attempts were ended by a restart, and how many jobs only waited, over all restarts."""
    demand(found.keys() >= started.keys(), "jobs are lost:", *sorted(started.keys() - found.keys())[:3])
    restarted = waited = 0
    for ticket, (job, events) in found.items():
        restarted += check(job, events, started[ticket], accepted)
        waited += only_waited(job, restarts)
    here = [events for job, events in found.values() if job.kind == "simulate"]
    demand(most_at_once(here) <= SLOTS, most_at_once(here), "jobs were at work in", SLOTS, "slots")
    return restarted, waited


def doctored(found, started, restarts):
    """What the check has to see: histories in which more was counted or begun than was."""
    def change(kind, alter, waited=True):
        ticket = next(
            ticket for ticket, (job, _) in found.items()
            if started[ticket].kind == kind and job.state == State.SUCCEEDED
            and only_waited(job, restarts) == waited
        )
        altered = copy.deepcopy(found[ticket])
        alter(*altered)
        return {**found, ticket: altered}

    def begun_before(job, events):
        # As if each claim were an attempt: begun while others held the slots, and given back by the restart.
        more = [copy.deepcopy(events[1]), copy.deepcopy(events[1])]
        for event, (before, after, reason) in zip(more, [(2, 3, "ACCEPTED"), (3, 2, "SERVER_RESTART")]):
            event.state_change.previous_state, event.state_change.state, event.state_change.reason = before, after, reason
        more[0].event_time.CopyFrom(events[0].event_time)
        events[1:1] = more
        for number, event in enumerate(events, 1):
            event.sequence, event.attempt = number, event.attempt + (number > 3)
        job.attempt += 1

    def counted(job, events):
        job.counted_attempts += 1

    def failed(job, events):
        job.state = events[-1].state_change.state = State.FAILED

    yield "a claim that was an attempt, here", change("simulate", begun_before)
    yield "a claim that was an attempt, elsewhere", change("elsewhere", begun_before)
    yield "a restart that was counted", change("simulate", counted, waited=False)
    yield "a job that failed for it", change("simulate", failed)


def run(binary, restarts, seed, folder):
    rng, place = random.Random(seed), Place()
    ends, numbers = collections.Counter(), iter(range(1 << 30))
    log = folder.with_name("log")

    def serve():
        server = Server(binary, folder, SLOTS, log=log, drain="0s", options=FLAGS)
        demand(server.address, "the server does not start again")
        place.address = server.address
        return server

    calm = threading.Event()

    def start(kind, priority):
        place.start(wish(next(numbers), kind, priority, rng))

    def replenish():
        """Sees to it that the patient ones have to wait."""
        while not calm.is_set():
            answer = place.again(lambda _, stub: stub.CountJobs(service_pb2.CountJobsRequest(), timeout=5))
            counts = answer.counts if answer else []
            waiting = {count.kind: count.jobs for count in counts if count.state == State.PENDING}
            for kind in KINDS:
                for _ in range(PATIENT + WAITING - waiting.get(kind, 0)):
                    start(kind, rng.choice([0, 0, 5, -5]))
            time.sleep(0.05)

    server = serve()
    stubborn = service_pb2.StartJobRequest(kind="simulate", request_id="stubborn", input_json='{"seconds": 60}', labels={"stubborn": ""})
    stubborn.options.retry_policy.maximum_attempts = 1
    stubborn.options.priority = 100
    place.start(stubborn)
    for kind in KINDS:
        for priority in [0] * WAITING + [-100] * PATIENT:
            start(kind, priority)
    threads = [place.client(work, place, random.Random(f"{seed}.{number}")) for number in range(2)] + [place.client(replenish)]
    times = []
    for _ in range(restarts):
        time.sleep(LIFE)
        kill = rng.random() < 0.8
        ends["killed" if kill else "stopped"] += 1
        times.append(time.time())
        server.kill() if kill else server.stop()
        server = serve()
    calm.set()
    channel, stub = connect(server.address)
    until = time.monotonic() + 40
    while active := sum(job.state not in FINAL for job in all_jobs(stub)):
        demand(time.monotonic() < until, active, "jobs do not end")
        time.sleep(0.2)
    place.over.set()
    for thread in threads:
        thread.join(30)
        demand(not thread.is_alive(), "a client hangs")
    demand(not place.violations, *place.violations)
    found = {job.id: (job, history(stub, job.id)) for job in all_jobs(stub)}
    channel.close()
    demand(server.stop() == 0, "the server does not stop in good order")
    restarted, waited = check_all(found, place.started, place.accepted, times)
    demand(restarted > 0 and waited > 5, "too little happened:", restarted, "attempts ended,", waited, "jobs waited")
    caught = 0
    for name, altered in doctored(found, place.started, times):
        try:
            check_all(altered, place.started, place.accepted, times)
        except Violation as violation:
            print(f"crash: mutant caught, {name}: {violation}")
            caught += 1
        else:
            raise Violation(f"the mutant was not caught: {name}")
    print(
        f"crash: {restarts} restarts ({ends['killed']} kills, {ends['stopped']} stops), {len(found)} jobs all ended, {waited} of which had "
        f"only waited until then: 0 with an attempt too many; {restarted} attempts ended by a restart: 0 counted; {caught} mutants caught"
    )


if __name__ == "__main__":
    sys.exit(main("restarts", __doc__, lambda options, place: run(options.binary, options.restarts, options.seed, place / "data"), restarts=60))
