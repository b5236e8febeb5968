"""Kills the real binary at random moments under load, and looks at what is left after each restart and at the end.

A killed process loses nothing that it wrote, so this finds what is held in memory alone, what is done twice by recovery, and
what a watcher can see though it did not last. A missing fsync is found by power.py.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import random
import shutil
import sqlite3
import sys
import threading
import time
import uuid

import grpc

from client import (
    FINAL, KEPT, Server, State, Told, Violation, account, add_output, all_jobs, connect, demand, main,
    service_pb2,
)

SLOTS = 64
STARTERS, BATCHERS, WATCHERS, CANCELLERS = 8, 1, 8, 1
# So many starts are answered in a round at most, or the end of all takes too long.
STARTS_MAX = 500
WORDS = "the quick brown fox jumps over the lazy dog and naps".split()
BREAKS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}


class Wish(Told):
    """Some job, under a number that stands in its labels."""

    def __init__(self, number, rng):
        kind = rng.random()
        seconds = 0 if kind < 0.6 else rng.uniform(0.05, 0.5) if kind < 0.85 else rng.uniform(1, 2.5)
        self.prompt = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
        work = {"prompt": self.prompt, "seconds": seconds, "steps": rng.randint(1, 8), "seed": number}
        if rng.random() < 0.15:
            work["chaos"] = {"error": 0.5}
        request = service_pb2.StartJobRequest(
            kind="simulate",
            input_json=json.dumps(work),
            labels={"wish": str(number)},
            request_id=f"wish-{number}" if rng.random() < 0.6 else "",
        )
        retry = request.options.retry_policy
        retry.initial_interval.FromMilliseconds(20)
        retry.maximum_attempts = 4
        super().__init__(request)


class Watch:
    """One reader of a job, over all breaks of its stream."""

    def __init__(self, wish, rng):
        self.wish = wish
        # Some begin with the whole history, the others with the snapshot.
        self.cursor = 0 if rng.random() < 0.8 else None
        self.whole = self.cursor == 0
        self.output = b""
        self.breaks = 0
        # Two clients with one watch would disturb each other's cursor.
        self.busy = False
        self.ended = False

    def take(self, event, first):
        """Takes a message in, and demands that it is the next."""
        job, what = self.wish.ticket, event.WhichOneof("event")
        demand(event.job_id == job, "a watch of", job, "shows", event.job_id)
        demand((what == "snapshot") == first, job, "shows", what, "as the first message" if first else "in between")
        if self.cursor is None:
            self.cursor = event.snapshot.job.sequence
        if what not in KEPT:
            demand(event.sequence == self.cursor, job, what, "has cursor", event.sequence, "after", self.cursor)
            return
        demand(event.sequence == self.cursor + 1, job, "shows", event.sequence, "after", self.cursor)
        self.cursor = event.sequence
        self.wish.saw(event)
        if self.whole:
            self.output = add_output(job, self.output, event)


class Ledger:
    """What clients were told, which is what has to be true for ever."""

    def __init__(self):
        self.wishes = {}
        # The names of wishes that were sent together, and so are there together or not at all.
        self.batches = []
        self.watches = []
        self.counts = collections.Counter()
        self.violations = []
        self.lock = threading.Lock()


class Round:
    """Clients that do not know when the server will die."""

    def __init__(self, ledger, address, seed):
        self.ledger, self.address = ledger, address
        self.over = threading.Event()
        self.here = []
        deeds = [(self.start, STARTERS), (self.batch, BATCHERS), (self.watch, WATCHERS), (self.cancel, CANCELLERS)]
        self.ready = threading.Barrier(1 + sum(many for _, many in deeds))
        self.threads = [
            threading.Thread(target=self.client, args=(deed, f"{seed}.{deed.__name__}.{number}"))
            for deed, many in deeds
            for number in range(many)
        ]
        for thread in self.threads:
            thread.start()
        self.ready.wait(30)

    def client(self, deed, seed):
        """Repeats a deed until the server is gone."""
        rng = random.Random(seed)
        channel, stub = connect(self.address)
        grpc.channel_ready_future(channel).result(timeout=30)
        self.ready.wait(30)
        while not self.over.is_set():
            try:
                deed(stub, rng)
            except grpc.RpcError as error:
                if error.code() not in BREAKS:
                    self.ledger.violations.append(f"{deed.__name__}: {error.code()}: {error.details()}")
            except Violation as violation:
                self.ledger.violations.append(str(violation))
        channel.close()

    def start(self, stub, rng):
        """Starts a job, or repeats a start that was made before, by whomever and with whatever outcome."""
        ledger = self.ledger
        if len(self.here) >= STARTS_MAX:
            return time.sleep(0.02)
        with ledger.lock:
            latest = list(ledger.wishes.values())[-300:]
            named = [wish for wish in latest if wish.request.request_id]
            unknown = [wish for wish in named if not wish.ticket]
            if named and rng.random() < 0.2:
                wish = rng.choice(unknown or named)
            else:
                number = len(ledger.wishes)
                wish = ledger.wishes[str(number)] = Wish(number, rng)
        job = stub.StartJob(wish.request, timeout=10)
        with ledger.lock:
            wish.started(job)
            ledger.counts["acknowledged"] += 1
            self.here.append(wish)

    def batch(self, stub, rng):
        """Starts several jobs at once, without request ids: what is there of them cannot be a repeat's."""
        ledger = self.ledger
        if len(self.here) >= STARTS_MAX:
            return time.sleep(0.02)
        with ledger.lock:
            wishes = []
            for number in range(len(ledger.wishes), len(ledger.wishes) + rng.randint(2, 20)):
                wish = ledger.wishes[str(number)] = Wish(number, rng)
                wish.request.request_id = ""
                wishes.append(wish)
            ledger.batches.append([wish.request.labels["wish"] for wish in wishes])
        request = service_pb2.BatchStartJobsRequest(requests=[wish.request for wish in wishes])
        jobs = stub.BatchStartJobs(request, timeout=10).jobs
        with ledger.lock:
            for wish, job in zip(wishes, jobs, strict=True):
                wish.started(job)
                ledger.counts["acknowledged"] += 1
                self.here.append(wish)

    def watch(self, stub, rng):
        """Watches a job, old or new, and breaks off at any message, or goes on until the server does."""
        ledger = self.ledger
        with ledger.lock:
            free = [watch for watch in ledger.watches[-200:] if not watch.busy and not watch.ended]
            if free and rng.random() < 0.5:
                watch = rng.choice(free)
            elif self.here:
                watch = Watch(rng.choice(self.here[-20:]), rng)
                ledger.watches.append(watch)
            else:
                return
            watch.busy = True
        try:
            follow(ledger, watch, stub, rng.choice([1, 1, 2, 3, 5, 8, 1000]))
        finally:
            watch.busy = False

    def cancel(self, stub, rng):
        """Cancels a job, and reads one."""
        time.sleep(0.01)
        with self.ledger.lock:
            if not self.here:
                return
            wish = rng.choice(self.here[-50:])
        job = stub.CancelJob(service_pb2.CancelJobRequest(job_id=wish.ticket, reason="a test"), timeout=10)
        with self.ledger.lock:
            wish.cancel_answered(job)
        other = rng.choice(self.here)
        job = stub.GetStatus(service_pb2.GetStatusRequest(job_id=other.ticket), timeout=10)
        with self.ledger.lock:
            other.shown(job)

    def end(self):
        """Waits for all clients."""
        self.over.set()
        for thread in self.threads:
            thread.join(30)
            demand(not thread.is_alive(), "a client hangs after the end of the server")
        return len(self.here)


def follow(ledger, watch, stub, messages):
    """Reads up to so many messages of a watch, from its cursor on."""
    request = service_pb2.WatchJobRequest(job_id=watch.wish.ticket)
    if watch.cursor is not None:
        request.after_sequence = watch.cursor
    stream = stub.WatchJob(request, timeout=60)
    try:
        for number, event in enumerate(stream):
            watch.take(event, number == 0)
            if number + 1 == messages:
                watch.breaks += 1
                stream.cancel()
                return
        watch.ended = True
    except grpc.RpcError:
        watch.breaks += 1
        ledger.counts["broken by a kill"] += 1
        raise


def check_one(wish, stub, ticket):
    """One job at the end of all: one end, one history, one output."""
    job, output = wish.check(stub, ticket)
    demand(job.state in FINAL, ticket, "has not ended")
    if job.state == State.SUCCEEDED:
        demand(output == wish.prompt.encode(), ticket, "wrote", output, "instead of", wish.prompt)
    wish.outcome = (job.state, job.sequence)
    return job.state, output


def check_batches(batches, found):
    """All of a batch is there, or nothing of it."""
    for batch in batches:
        there = sum(name in found for name in batch)
        demand(there in (0, len(batch)), there, "of a batch of", len(batch), "jobs are there:", *batch)


def check_end(ledger, address):
    """Waits for all jobs to end, resumes every watch, and looks at all that is kept."""
    channel, stub = connect(address)
    until = time.monotonic() + 60
    while active := [job.id for job in all_jobs(stub) if job.state not in FINAL]:
        demand(time.monotonic() < until, len(active), "jobs do not end, for example", active[0])
        time.sleep(0.1)
    found = account(stub, ledger.wishes)
    check_batches(ledger.batches, found)
    for watch in ledger.watches:
        while not watch.ended:
            follow(ledger, watch, stub, None)
    for wish in [wish for wish in ledger.wishes.values() if wish.request.request_id and wish.ticket][::10]:
        wish.started(stub.StartJob(wish.request, timeout=30))
    wishes = [ledger.wishes[name] for name in found]
    pool = concurrent.futures.ThreadPoolExecutor(4)
    try:
        ends = dict(zip(wishes, pool.map(check_one, wishes, itertools.repeat(stub), found.values())))
    finally:
        pool.shutdown(cancel_futures=True)
    for watch in ledger.watches:
        state, output = ends[watch.wish]
        demand(watch.cursor == watch.wish.outcome[1], "a watch of", watch.wish.ticket, "ends at", watch.cursor)
        if watch.whole:
            demand(watch.output == output, "a watch of", watch.wish.ticket, "has", watch.output, "of", output)
    channel.close()
    return collections.Counter(State.Name(state) for state, _ in ends.values())


def check_checks(ledger, binary, folder):
    """The mutants: stores that lost a job, an event, the request ids, and one job of a batch."""
    known = uuid.UUID(next(wish.ticket for wish in reversed(ledger.wishes.values()) if wish.ticket)).hex
    wounds = {
        "lost-job": f"DELETE FROM jobs WHERE id = x'{known}'",
        "lost-event": "DELETE FROM events WHERE sequence = 3",
        "lost-requests": "DELETE FROM requests; DELETE FROM request_index",
    }
    for name, wound in wounds.items():
        copy = folder.with_name(name)
        shutil.copytree(folder, copy)
        server = Server(binary, copy, SLOTS)
        # Beside the server, which would not start on what contradicts itself.
        with contextlib.closing(sqlite3.connect(copy / "store" / "longhaul.db", timeout=30)) as database:
            database.executescript(wound)
            demand(database.total_changes > 0, "the mutant", name, "has nothing to lose")
        try:
            check_end(ledger, server.address)
        except Violation as violation:
            print(f"crash: mutant {name} caught: {violation}")
        else:
            raise Violation(f"the mutant {name} was not caught")
        finally:
            server.kill()
    try:
        check_batches(ledger.batches, ledger.batches[0][1:])
    except Violation as violation:
        print(f"crash: mutant torn-batch caught: {violation}")
    else:
        raise Violation("the mutant torn-batch was not caught")
    return len(wounds) + 1


def run(binary, rounds, seed, folder):
    rng = random.Random(seed)
    ledger = Ledger()
    log = folder.with_name("log")
    for number in range(rounds):
        server = Server(binary, folder, SLOTS, log=log)
        demand(server.address, "the server does not start again")
        if number:
            channel, stub = connect(server.address)
            account(stub, ledger.wishes)
            channel.close()
        clients = Round(ledger, server.address, f"{seed}.{number}")
        time.sleep(rng.uniform(0.2, 1.5))
        server.kill()
        started = clients.end()
        print(f"crash: round {number + 1}: {started} starts answered, {len(ledger.wishes)} wishes so far", flush=True)
        demand(not ledger.violations, *ledger.violations[:5])
    server = Server(binary, folder, SLOTS, log=log)
    demand(server.address, "the server does not start again")
    ends = check_end(ledger, server.address)
    demand(server.stop() == 0, "the server does not stop in good order")
    mutants = check_checks(ledger, binary, folder)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(ends.items()))
    print(
        f"crash: {rounds} kills, {ledger.counts['acknowledged']} starts acknowledged, {sum(ends.values())} jobs ({counts}), "
        f"{len(ledger.watches)} watches broken {sum(watch.breaks for watch in ledger.watches)} times "
        f"({ledger.counts['broken by a kill']} by a kill), {len(ledger.batches)} batches: 0 lost, 0 twice, {mutants} of {mutants} mutants caught"
    )


if __name__ == "__main__":
    sys.exit(main("kill", __doc__, lambda options, place: run(options.binary, options.rounds, options.seed, place / "data"), rounds=10))
