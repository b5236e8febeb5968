"""What the load was told of its jobs, and whether each of them is accounted for.

A list of all jobs is taken every few seconds, more often than a job is kept after its end. So a job that is not in it has been
deleted by the load, or was seen ended before and its time to be kept is over; any other is lost. Only where two lists were
further apart than that, by a machine that was busy, may a job have come to its end and gone unseen.
"""

import collections
import threading
import time

from client import FINAL, State, all_jobs, demand

# How far the server's clock may be from ours.
CLOCKS_DIFFER = 1


class Books:
    """Every job of one soak."""

    def __init__(self, retention):
        self.retention = retention
        self.listed = time.time()
        self.unseen = set()
        self.lock = threading.Lock()
        self.acknowledged = set()
        # A delete was asked for, whatever came of it.
        self.deleted = set()
        # Of those seen ended: the state, and until when they are kept.
        self.ended = {}
        self.recent = collections.deque(maxlen=300)
        self.request_ids = 0
        self.lists = 0
        self.counts = collections.Counter()
        self.violations = []

    def started(self, jobs):
        """Starts were answered."""
        with self.lock:
            self.acknowledged.update(job.id for job in jobs)
            self.request_ids += sum(bool(job.request_id) for job in jobs)
            self.recent.extend(jobs)

    def deletes(self, job):
        """A delete is about to be asked for."""
        with self.lock:
            self.deleted.add(job)

    def wrong(self, *what):
        """Something that the contract rules out was seen."""
        with self.lock:
            self.violations.append(" ".join(map(str, what)))

    def compare(self, stub):
        """Lists all jobs, and demands that those which are not there may be gone. Returns how many are active."""
        with self.lock:
            # Another list may be under way, and tell of what came later.
            known, over = set(self.acknowledged), set(self.ended)
        began, found = time.time(), {}
        for job in all_jobs(stub):
            demand(job.id not in found, job.id, "is on two pages of a list")
            found[job.id] = job
        # A page may have come much later than it was asked for.
        ended = time.time()
        with self.lock:
            self.lists += 1
            for job in found.values():
                if job.state in FINAL:
                    outcome = (job.state, job.purge_time.ToNanoseconds() / 1e9)
                    demand(self.ended.setdefault(job.id, outcome) == outcome, job.id, "ended twice")
                else:
                    demand(job.id not in over, job.id, "goes on after its end")
            gone = known - found.keys() - self.deleted
            if ended - self.listed > self.retention - CLOCKS_DIFFER:
                self.unseen |= gone - self.ended.keys()
            self.listed = max(self.listed, began)
            for job in gone - self.unseen:
                demand(job in self.ended, job, "is lost: it is not there and nobody saw its end")
                kept_until = self.ended[job][1]
                demand(kept_until < ended + CLOCKS_DIFFER, job, "was forgotten", kept_until - ended, "s early")
        return sum(job.state not in FINAL for job in found.values())

    def settle(self, stub, seconds):
        """Waits until no job is active."""
        until = time.monotonic() + seconds
        while active := self.compare(stub):
            demand(time.monotonic() < until, active, "jobs do not end")
            time.sleep(0.5)

    def account(self):
        """In words: how many jobs, and what became of them. To be asked when all have ended."""
        left = self.acknowledged - self.ended.keys() - self.deleted - self.unseen
        demand(not left, len(left), "acknowledged jobs are not accounted for, for example", *sorted(left)[:1])
        ends = collections.Counter(State.Name(state) for state, _ in self.ended.values())
        words = ", ".join(f"{count} {state}" for state, count in sorted(ends.items()))
        return f"{len(self.acknowledged)} jobs acknowledged, 0 lost ({words}, {len(self.deleted)} deleted, {len(self.unseen)} forgotten unseen)"
