"""Cuts the power at every point of two scripted lives of the real binary, and looks at what a disk has left.

A life runs under preload.c, which kills the server instead of its n-th change to the data folder; disk.py says what is left
then: strictly what was flushed, or a torn disk with some of the rest. The store has to open, and everything that clients were
told has to be true. Then the same with a flush that fails. Mutants show that all this can fail: a binary that does not flush,
and disks that take no notice of flushes.
"""

import argparse
import collections
import concurrent.futures
import copy
import multiprocessing
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from client import Server, Violation, demand
from disk import Disk
from life import check, live

HERE = pathlib.Path(__file__).resolve().parent
# As many lives at once as a small machine has cores.
WORKERS = 2
# How long it may take; past it, only some of the points are tried.
SECONDS_MAX = 120
# How many of the other cases are tried, unless all are.
SAMPLE = 30
# From how much space on a disk in memory is taken, where what is not under the shim flushes for nothing.
MEMORY_BYTES_MIN = 4 << 30
# Disks, by what they do with a flush of a path; `torn` keeps besides some of what was not flushed.
DISKS = {
    "strict": lambda path: True,
    "torn": lambda path: True,
    "no flush": lambda path: False,
    "no flush of the log": lambda path: not path.endswith("-wal"),
}
# The lives that are swept point by point, and one with so much in it that a checkpoint runs beside it.
SWEPT = ("first", "second")
LIVES = (*SWEPT, "large")
HONEST = ("strict", "torn")
LIARS = ("no flush", "no flush of the log")


class Bench:
    """Where one worker process lets servers live and die."""

    def __init__(self, binary, shim, place, seed):
        self.binary, self.shim, self.place, self.seed = binary, shim, pathlib.Path(tempfile.mkdtemp(dir=place)), seed
        # The second life begins with what a kill left of another, so that it has a log to recover.
        self.before, self.known = self.place / "before", {}
        (self.before / "share").mkdir(parents=True)
        server = Server(binary, self.before / "share" / "data", 2)
        live(server, self.known, "before")
        server.kill()
        for shared in self.before.rglob("*-shm"):
            shared.unlink()

    def run(self, life, binary=None, at=0, eio=0, again=False):
        """A life, until it ends or is ended; with `again` another after it, without a power cut in between."""
        place = pathlib.Path(tempfile.mkdtemp(dir=self.place, prefix=f"{life}-{at}-{eio}-"))
        top, wishes = place / "top", {}
        if life == "second":
            shutil.copytree(self.before, top)
            wishes = copy.deepcopy(self.known)
        else:
            top.mkdir()
        # Folders above are missing too, as in a new home.
        disk, data = Disk(top), top / "share" / "data"

        def server(at, eio):
            shim = {"LD_PRELOAD": self.shim, "CRASH_FOLDER": top, "CRASH_NOTES": place / "notes"}
            shim |= {"CRASH_AT": at, "CRASH_EIO": eio}
            environment = os.environ | {name: str(value) for name, value in shim.items()}
            return Server(binary or self.binary, data, 2, environment, place / "log", drain="0s")

        first = server(at, eio)
        refused = live(first, wishes, life) if first.address else 0
        # With a power cut to come there is no last chance to make up for a flush that failed.
        first.kill() if eio else first.stop()
        # One that does not get as far as to serve is started again, as people do.
        if again or eio and not first.address:
            second = server(0, 0)
            demand(second.address, "the server does not start again")
            live(second, wishes, f"{life}-again")
            second.kill()
        return Death(self.binary, place, disk, wishes, refused, f"{self.seed}.{life}.{at}.{eio}")


class Death:
    """A life that is over, and what there is to find out about it."""

    def __init__(self, binary, place, disk, wishes, refused, seed):
        self.binary, self.place, self.disk, self.seed = binary, place, disk, seed
        self.wishes, self.refused = wishes, refused

    def replay(self, flushes=DISKS["strict"]):
        """The disk at the end, and all that was done to it."""
        disk = copy.deepcopy(self.disk)
        return disk, disk.replay(self.place / "notes", flushes)

    def losses(self, disks):
        """By the name of a disk what is wrong with what it has left, or nothing."""
        return {name: self.loss(name) for name in disks}

    def loss(self, name):
        disk, _ = self.replay(DISKS[name])
        left = pathlib.Path(tempfile.mkdtemp(dir=self.place)) / "left"
        disk.write(left, random.Random(self.seed) if name == "torn" else None)
        try:
            check(self.binary, left / "share" / "data", copy.deepcopy(self.wishes), left.parent / "log")
        except Violation as violation:
            return f"{violation} (in {left})"
        shutil.rmtree(left)
        return None

    def forget(self):
        """Gives its space back."""
        shutil.rmtree(self.place)


def begin(*arguments):
    """Makes a worker process ready."""
    global bench
    bench = Bench(*arguments)


def count(life):
    """The changes of an undisturbed life, by kind and path."""
    death = bench.run(life)
    disk, done = death.replay()
    demand(not disk.differs(), "preload.c does not see all that is done to", disk.differs())
    losses = [loss for loss in death.losses(HONEST).values() if loss]
    demand(not losses, "an undisturbed life loses", losses)
    return done


def cut(life, at, disks=HONEST, binary=None):
    """A power cut at one point: what is lost, on which disk."""
    death = bench.run(life, binary=binary, at=at)
    return finish(death, f"{life} life, change {at}", disks)


def cut_liars(life, at):
    """The same on disks that take no notice of flushes."""
    return cut(life, at, LIARS)


def cut_mutant(binary, life, at):
    """The same with a binary that does not flush."""
    return cut(life, at, ["strict"], binary)


def cut_later(life, at):
    """The server dies at one point, another goes on in its place, and then the power is cut."""
    death = bench.run(life, at=at, again=True)
    return finish(death, f"{life} life, killed at change {at} and started again", HONEST)


def fail(life, flush, at):
    """A flush that fails, and a power cut at the end or at a point soon after."""
    death = bench.run(life, eio=flush, at=at)
    return finish(death, f"{life} life, flush {flush} fails, cut at {at or 'the end'}", HONEST)


def finish(death, where, disks):
    losses = death.losses(disks)
    if not any(losses.get(name) for name in HONEST):
        death.forget()
    return where, death.refused, losses


class Tally:
    """What came of many deaths."""

    def __init__(self):
        self.deaths, self.refused, self.looked, self.lost = 0, 0, collections.Counter(), collections.Counter()

    def add(self, results, mutant=False):
        """Adds what came of some. What a mutant lost is as it should be."""
        for where, refused, losses in results:
            self.deaths += 1
            self.refused += refused > 0
            for disk, loss in losses.items():
                self.looked[disk] += 1
                self.lost[disk] += loss is not None
                if loss and not mutant and disk in HONEST:
                    print(f"crash: {where}, {disk} disk: {loss}", flush=True)
        return self


def sweep(workers, options, changes, place):
    """All of it; whether everything is as it must be."""
    rng = random.Random(options.seed)

    def each(deed, cases):
        return workers.map(deed, *zip(*cases))

    def some(cases):
        return cases if options.all else rng.sample(cases, min(SAMPLE, len(cases)))

    points = [(life, at) for life in SWEPT for at in range(1, len(changes[life]) + 1)]
    rng.shuffle(points)
    tries, rest = points[:20], points[20:]
    began = time.monotonic()
    cuts = Tally().add(each(cut, tries))
    each_takes = (time.monotonic() - began) / len(tries)
    # Half of the time is for the cases that are no points.
    stride = 1 if options.all else int(each_takes * len(rest) / (SECONDS_MAX / 2)) + 1
    if stride > 1:
        print(f"crash: one in {stride} of {len(points)} points; all would take {each_takes * len(rest):.0f} s", flush=True)
    cuts.add(each(cut, rest[::stride]))
    # The log is moved into the database beside the writer: from the first page moved to the flush after the last.
    moved = [at for at, (kind, path) in enumerate(changes["large"], 1) if path.endswith("longhaul.db") and "store.new" not in path]
    demand(len(moved) > 1000, "the large life's log is not moved into the database")
    large = range(moved[0] - 5, moved[-1] + 20)
    cuts.add(each(cut, [("large", at) for at in rng.sample(large, SAMPLE // 2)]))

    # The whole way of a new store to its place, and some points of the rest.
    placed = next(at for at, (kind, _) in enumerate(changes["first"], 1) if kind == "R")
    later = [("first", at) for at in [*range(1, 12), *range(placed - 5, placed + 12)]]
    later = Tally().add(each(cut_later, some(later) + rng.sample(points, SAMPLE // 3)))

    failures = []
    for life in SWEPT:
        flushes = [at for at, (kind, _) in enumerate(changes[life], 1) if kind == "S"]
        for number, at in enumerate(flushes, 1):
            failures.append((life, number, rng.choice([0, at + rng.randint(1, 12)])))
    failed = Tally().add(each(fail, some(failures)))

    mutant = place / "synchronous-off"
    text = options.binary.read_bytes()
    demand(text.count(b"synchronous=FULL") > 0, "the binary does not have the text synchronous=FULL")
    mutant.write_bytes(text.replace(b"synchronous=FULL", b"synchronous=OFF "))
    mutant.chmod(0o755)
    caught = Tally().add(each(cut_liars, rng.sample(points, SAMPLE // 2)), mutant=True)
    off = Tally().add(each(cut_mutant, [(mutant, *point) for point in rng.sample(points, SAMPLE // 2)]), mutant=True)
    caught.lost["synchronous=OFF"], caught.looked["synchronous=OFF"] = off.lost["strict"], off.looked["strict"]

    lost = sum(tally.lost.total() for tally in (cuts, later, failed))
    told = ", ".join(f"{name} at {caught.lost[name]} of {caught.looked[name]}" for name in sorted(caught.looked))
    print(
        f"crash: {cuts.deaths} kill points, {later.deaths} with another life before the power cut, {failed.deaths} failed "
        f"flushes (callers told at {failed.refused}), each on a strict and a torn disk: {lost} lost; mutants lose: {told}"
    )
    return lost == 0 and failed.refused > 0 and all(caught.lost[name] for name in caught.looked)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--all", action="store_true", help="every point, however long it takes")
    options = parser.parse_args()
    print(f"crash: seed {options.seed}", flush=True)
    place = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="longhaul-power-")))
    memory = pathlib.Path("/dev/shm")
    in_memory = memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES_MIN
    lives = pathlib.Path(tempfile.mkdtemp(prefix="longhaul-power-", dir=memory)) if in_memory else place
    shim = place / "preload.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, HERE / "preload.c", "-ldl"], check=True)
    # Spawned, since a process that has used gRPC must not be forked.
    with concurrent.futures.ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), begin, (options.binary, shim, lives, options.seed)
    ) as workers:
        try:
            good = sweep(workers, options, dict(zip(LIVES, workers.map(count, LIVES))), place)
        except Violation as violation:
            print(f"crash: {violation}")
            good = False
        if not good:
            workers.shutdown(cancel_futures=True)
    if good:
        shutil.rmtree(place)
        shutil.rmtree(lives, ignore_errors=True)
        return 0
    print(f"crash: FAILED with seed {options.seed}; what is left lies in {lives}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
