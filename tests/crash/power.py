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
# How long the sweep over all points may take; past it, only every so many points are tried.
SECONDS_MAX = 120
LIVES = ("first", "second")
# Disks that take no notice of some flushes.
LIARS = {"no flush": lambda path: False, "no flush of the log": lambda path: not path.endswith("-wal")}


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
        return Death(self.binary, place, disk, wishes, refused)


class Death:
    """A life that is over, and what there is to find out about it."""

    def __init__(self, binary, place, disk, wishes, refused):
        self.binary, self.place, self.disk, self.wishes, self.refused = binary, place, disk, wishes, refused

    def replay(self, flushes=lambda path: True):
        """The disk at the end, and all that was done to it."""
        disk = copy.deepcopy(self.disk)
        return disk, disk.replay(self.place / "notes", flushes)

    def loss(self, torn=None, flushes=lambda path: True):
        """What is wrong with what a disk has left, if anything; with the seed `torn` a torn one."""
        disk, _ = self.replay(flushes)
        left = pathlib.Path(tempfile.mkdtemp(dir=self.place)) / "left"
        disk.write(left, torn and random.Random(torn))
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
    """The changes of an undisturbed life, and which of them are flushes."""
    death = bench.run(life)
    disk, done = death.replay()
    demand(not disk.differs(), "preload.c does not see all that is done to", disk.differs())
    losses = [loss for loss in (death.loss(), death.loss(f"{bench.seed}.{life}")) if loss]
    demand(not losses, "an undisturbed life loses", losses)
    return [kind for kind, _ in done]


def cut(life, at, liars):
    """A power cut at one point: what is lost, on which kind of disk."""
    death = bench.run(life, at=at)
    losses = {"strict": death.loss(), "torn": death.loss(f"{bench.seed}.{life}.{at}")}
    for name in liars:
        losses[name] = death.loss(flushes=LIARS[name])
    return finish(death, f"{life} life, change {at}", losses)


def cut_mutant(binary, life, at):
    """A power cut at one point of the binary that does not flush."""
    death = bench.run(life, binary=binary, at=at)
    return finish(death, f"{life} life, change {at}", {"synchronous=OFF": death.loss()})


def cut_later(life, at):
    """The server dies at one point, another goes on in its place, and then the power is cut."""
    death = bench.run(life, at=at, again=True)
    losses = {"strict": death.loss(), "torn": death.loss(f"{bench.seed}.{life}.{at}.again")}
    return finish(death, f"{life} life, killed at change {at} and started again", losses)


def fail(life, flush, at):
    """A flush that fails, and a power cut at the end or at a point soon after."""
    death = bench.run(life, eio=flush, at=at)
    losses = {"strict": death.loss(), "torn": death.loss(f"{bench.seed}.{life}.{flush}.{at}")}
    return finish(death, f"{life} life, flush {flush} fails, cut at {at or 'the end'}", losses)


def finish(death, where, losses):
    if not (losses.get("strict") or losses.get("torn")):
        death.forget()
    return where, death.refused, losses


class Tally:
    """What came of many deaths."""

    def __init__(self):
        self.deaths, self.refused, self.looked, self.lost = 0, 0, collections.Counter(), collections.Counter()

    def add(self, results):
        """Adds what came of some, and says what was lost on a disk that does as it is told."""
        for where, refused, losses in results:
            self.deaths += 1
            self.refused += refused > 0
            for disk, loss in losses.items():
                self.looked[disk] += 1
                self.lost[disk] += loss is not None
                if loss and disk in ("strict", "torn"):
                    print(f"crash: {where}, {disk} disk: {loss}", flush=True)
        return self


def sweep(workers, options, kinds, place):
    """All of it; whether everything is as it must be."""
    rng = random.Random(options.seed)
    points = [(life, at) for life in LIVES for at in range(1, len(kinds[life]) + 1)]
    began = time.monotonic()
    tries = rng.sample(points, 20)
    cuts = Tally().add(workers.map(cut, *zip(*((*point, list(LIARS)) for point in tries))))
    rest = [point for point in points if point not in tries]
    expected = (time.monotonic() - began) / len(tries) * len(rest)
    stride = 1 if options.all else max(1, -(-int(expected) // SECONDS_MAX))
    if stride > 1:
        print(f"crash: every {stride}th of {len(points)} points, for they would take {expected:.0f} s; all with --all")
    cuts.add(workers.map(cut, *zip(*((*point, []) for point in rest[::stride]))))

    mutant = place / "synchronous-off"
    text = options.binary.read_bytes()
    demand(text.count(b"synchronous=FULL") > 0, "the binary does not have the text synchronous=FULL")
    mutant.write_bytes(text.replace(b"synchronous=FULL", b"synchronous=OFF "))
    mutant.chmod(0o755)
    mutants = Tally().add(workers.map(cut_mutant, *zip(*((mutant, *point) for point in rng.sample(points, 20)))))

    failures = []
    for life in LIVES:
        flushes = [at for at, kind in enumerate(kinds[life], 1) if kind == "S"]
        for number, at in enumerate(flushes, 1):
            failures += [(life, number, 0), (life, number, at + rng.randint(1, 12))]
    failed = Tally().add(workers.map(fail, *zip(*failures)))

    boot = [("first", at) for at in range(1, kinds["first"].index("R") + 12)]
    later = Tally().add(workers.map(cut_later, *zip(*boot, *rng.sample(points, 30))))

    tallies = {disk: (cuts.lost[disk], cuts.looked[disk]) for disk in LIARS}
    tallies["synchronous=OFF"] = (mutants.lost["synchronous=OFF"], mutants.deaths)
    lost = sum(tally.lost[disk] for tally in (cuts, later, failed) for disk in ("strict", "torn"))
    caught = ", ".join(f"{name} loses at {lost} of {of}" for name, (lost, of) in tallies.items())
    print(
        f"crash: {cuts.deaths} kill points of {len(points)} on {' and '.join(('strict', 'torn'))} disks, {later.deaths} of "
        f"them with another life before the cut, and {failed.deaths} lives with a failed flush ({failed.refused} told so by UNAVAILABLE): {lost} lost; mutants: {caught}"
    )
    return lost == 0 and failed.refused > 0 and all(lost for lost, _ in tallies.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--all", action="store_true", help="every point, however long it takes")
    options = parser.parse_args()
    print(f"crash: seed {options.seed}", flush=True)
    place = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="longhaul-power-")))
    shim = place / "preload.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, HERE / "preload.c", "-ldl"], check=True)
    # Spawned, since a process that has used gRPC must not be forked.
    with concurrent.futures.ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), begin, (options.binary, shim, place, options.seed)
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
        return 0
    print(f"crash: FAILED with seed {options.seed}; what is left lies in {place}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
