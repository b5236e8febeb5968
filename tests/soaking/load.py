"""Mixed load: clients that start, watch, list, cancel, retry and delete, and peers that are slow or silent."""

import json
import random
import threading
import time

import grpc

import peers
import workers
from client import FINAL, Violation, connect, demand, job_pb2, service_pb2

BREAKS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
# Refusals that clients have to expect who do not know what others do: deleted, forgotten, not ended yet, lease lost.
EXPECTED = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
# How long a call may take, over a server that is stopped for a while.
PATIENCE = 10
WORDS = "the quick brown fox jumps over the lazy dog and naps".split()


def wish(rng, number):
    """Some job: for the server's slots, for workers elsewhere, or now and then for nobody."""
    kind = rng.choices(["simulate", "soak.remote", "soak.nobody"], [60, 36, 4])[0]
    request = service_pb2.StartJobRequest(kind=kind, labels={"soak": str(number % 10), "who": rng.choice(WORDS)})
    options = request.options
    options.priority = rng.choice([0, 0, 0, -5, 5, 100])
    options.retry_policy.initial_interval.FromMilliseconds(50)
    options.retry_policy.maximum_attempts = rng.randint(1, 4)
    if kind == "simulate":
        work = {"prompt": " ".join(rng.choices(WORDS, k=rng.randint(1, 40))), "steps": rng.randint(1, 20), "seed": number}
        work["seconds"] = rng.choice([0, 0, 0, 0.1, 0.3, 1])
        if rng.random() < 0.2:
            work["chaos"] = {"error": 0.3, "panic": 0.2, "hang": 0.1}
            options.progress_timeout.FromMilliseconds(500)
        request.input_json = json.dumps(work)
    elif kind == "soak.nobody":
        options.schedule_to_start_timeout.FromMilliseconds(2000)
    if rng.random() < 0.4:
        request.request_id = f"soak-{number}"
    if rng.random() < 0.15:
        options.schedule_time.FromNanoseconds(time.time_ns() + rng.randint(0, 2_000_000_000))
    if rng.random() < 0.1:
        options.concurrency_key = rng.choice(WORDS)
        options.concurrency_limit = rng.randint(1, 3)
    if rng.random() < 0.1:
        options.start_to_close_timeout.FromMilliseconds(rng.randint(100, 2000))
    return request


class Crowd:
    """Everybody who is there for some time, or workers only."""

    def __init__(self, books, address, seed, workers_only=False):
        self.books, self.address, self.over = books, address, threading.Event()
        acts = [(self.compare, 1), (workers.lease, 2), (workers.stream, 2)]
        if not workers_only:
            acts += [(self.start, 2), (self.batch, 1), (self.watch, 3), (self.watch_many, 1), (self.read_slowly, 1)]
            acts += [(self.list, 1), (self.change, 2), (self.http, 3), (self.stall, 3), (self.quiet, 3)]
        self.threads = [
            threading.Thread(target=self.play, args=(act, f"{seed}.{act.__name__}.{number}"))
            for act, many in acts
            for number in range(many)
        ]
        for thread in self.threads:
            thread.start()

    def play(self, act, seed):
        """Repeats an act until it is over, in spite of a server that is gone."""
        rng = random.Random(seed)
        channel, stub = connect(self.address)
        me = act if act.__module__ == __name__ else lambda *rest: act(self, channel, *rest)
        while not self.over.is_set():
            try:
                me(stub, rng)
            except grpc.RpcError as error:
                if error.code() not in BREAKS | EXPECTED:
                    self.books.wrong(act.__name__, "hears", error.code(), error.details())
                self.over.wait(0.1)
            except Violation as violation:
                self.books.wrong(violation)
            except OSError:
                # Whoever has a socket hears of a dead server so.
                self.over.wait(0.1)
            self.books.counts[act.__name__] += 1
        channel.close()

    def end(self):
        """Waits until everybody has gone."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)
            demand(not thread.is_alive(), "a client hangs:", thread.name)

    def some_job(self, rng):
        with self.books.lock:
            return rng.choice(self.books.recent) if self.books.recent else job_pb2.Job()

    def start(self, stub, rng):
        self.over.wait(0.06)
        number = rng.randrange(1 << 40)
        request = wish(rng, number)
        self.books.started([stub.StartJob(request, timeout=PATIENCE)])
        if request.request_id and rng.random() < 0.2:
            # A repeat: the same job, unless it is forgotten.
            self.books.started([stub.StartJob(request, timeout=PATIENCE)])

    def batch(self, stub, rng):
        self.over.wait(0.7)
        requests = [wish(rng, rng.randrange(1 << 40)) for _ in range(rng.randint(2, 15))]
        batch = service_pb2.BatchStartJobsRequest(requests=requests)
        self.books.started(stub.BatchStartJobs(batch, timeout=PATIENCE).jobs)

    def watch(self, stub, rng):
        """Watches a job to its end, or goes away before."""
        self.over.wait(0.05)
        request = service_pb2.WatchJobRequest(job_id=self.some_job(rng).id or "0" * 36, omit_output=rng.random() < 0.2)
        if not request.job_id.strip("0"):
            return
        if rng.random() < 0.7:
            request.after_sequence = 0
        messages = rng.choice([1, 3, 10, 1000])
        stream = stub.WatchJob(request, timeout=3)
        for number, _ in enumerate(stream):
            if number >= messages or self.over.is_set():
                stream.cancel()
                return

    def watch_many(self, stub, rng):
        request = service_pb2.WatchJobsRequest(initial_jobs=rng.choice([0, 100]))
        request.minimum_interval.FromMilliseconds(100)
        for _ in stub.WatchJobs(request, timeout=rng.uniform(1, 5)):
            if self.over.is_set():
                break

    def read_slowly(self, stub, rng):
        """Reads one message a second of what everybody does."""
        for _ in stub.WatchJobs(service_pb2.WatchJobsRequest(), timeout=8):
            if self.over.wait(1):
                break

    def list(self, stub, rng):
        self.over.wait(0.3)
        asked = service_pb2.ListJobsRequest(page_size=100)
        asked.filter.labels["soak"] = str(rng.randrange(10))
        if rng.random() < 0.5:
            asked.filter.states.append(rng.choice([1, 2, 3, 6, 7]))
        stub.ListJobs(asked, timeout=PATIENCE)
        stub.CountJobs(service_pb2.CountJobsRequest(), timeout=PATIENCE)
        if job := self.some_job(rng).id:
            stub.ListJobEvents(service_pb2.ListJobEventsRequest(job_id=job), timeout=PATIENCE)

    def change(self, stub, rng):
        """Cancels, retries and deletes."""
        self.over.wait(0.3)
        if not (job := self.some_job(rng).id):
            return
        deed = rng.random()
        if deed < 0.4:
            stub.CancelJob(service_pb2.CancelJobRequest(job_id=job, reason="a soak"), timeout=PATIENCE)
            return
        if stub.GetStatus(service_pb2.GetStatusRequest(job_id=job), timeout=PATIENCE).state not in FINAL:
            return
        if deed < 0.7:
            self.books.started([stub.RetryJob(service_pb2.RetryJobRequest(job_id=job), timeout=PATIENCE)])
        else:
            self.books.deletes(job)
            stub.DeleteJob(service_pb2.DeleteJobRequest(job_id=job), timeout=PATIENCE)

    def compare(self, stub, rng):
        self.over.wait(self.books.pause)
        self.books.compare(stub)

    def http(self, stub, rng):
        path = f"/v1/jobs/{job}:watch?afterSequence=0" if (job := self.some_job(rng).id) else "/v1/jobs:watch"
        peers.read_events(self.address, path if rng.random() < 0.7 else "/v1/jobs:watch", self.over, rng.uniform(0.2, 5))

    def stall(self, stub, rng):
        peers.stall(self.address, "/v1/jobs:watch?initialJobs=1000", self.over, rng.uniform(2, 8))

    def quiet(self, stub, rng):
        rng.choice(peers.QUIET)(self.address, self.over, rng.uniform(1, 12))
