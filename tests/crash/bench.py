"""Where servers live and die: what the tests of crashes and disks share.

A life runs under preload.c, which kills the server instead of its n-th change to the data folder or lets some of them fail;
disk.py says what is left then: strictly what was flushed, or a torn disk with some of the rest. The store has to open, and
everything that clients were told has to be true.
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
import tempfile
import threading

from client import Server, Violation, demand
from disk import Disk, Folder
from life import Backup, check, live

HERE = pathlib.Path(__file__).resolve().parent
# As many lives at once as a small machine has cores.
WORKERS = 2
# When a disk that fails is healed, or its server killed, at the latest.
REMEDY_SECONDS = 2
# From how much space on a disk in memory is taken, where what is not under the shim flushes for nothing.
MEMORY_BYTES_MIN = 4 << 30
# Disks, by what they do with a flush of a path; `torn` keeps besides some of what was not flushed.
DISKS = {
    "strict": lambda path, node: True,
    "torn": lambda path, node: True,
    "no flush": lambda path, node: False,
    "no flush of the log": lambda path, node: not path.endswith("-wal"),
    "no flush of folders": lambda path, node: not isinstance(node, Folder),
    # As if a server did not flush the folder in which it renames a new store, or a backup's the one of that.
    "no flush after the store's rename": lambda path, node: not path.endswith("/data"),
    "no flush after the backup's rename": lambda path, node: not path.endswith("/copies"),
}
HONEST = ("strict", "torn")
# A worker that did not hear that it got a job must not hold it up for long.
SETTINGS = ("--accept-timeout", "1s")


class Bench:
    """Where one worker process lets servers live and die."""

    def __init__(self, binary, shim, place, seed):
        self.binary, self.shim, self.place, self.seed = binary, shim, pathlib.Path(tempfile.mkdtemp(dir=place)), seed
        # The second life begins with what a kill left of another, so that it has a log to recover.
        self.before, self.known = self.place / "before", {}
        (self.before / "share").mkdir(parents=True)
        (self.before / "copies").mkdir()
        server = Server(binary, self.before / "share" / "data", 2, options=SETTINGS)
        live(server, self.known, "before")
        server.kill()
        for shared in self.before.rglob("*-shm"):
            shared.unlink()

    def environment(self, top, notes, **shim):
        """What preload.c is told."""
        shim |= {"LD_PRELOAD": self.shim, "CRASH_FOLDER": top, "CRASH_NOTES": notes}
        return os.environ | {name: str(value) for name, value in shim.items()}

    def run(self, life, binary=None, at=0, eio=0, of="S", then="", hidden=False, backup_at=0, backup_eio=0, again=False):
        """A life, until it ends or is ended; with `again` another after it, without a power cut in between.

        It ends at the server's change `at` or the backup's change `backup_at`. The `eio`-th write or flush (`of` "W" or "S") of
        the server or of the backup fails; with `then` every one of the server's from there on, until the disk is "healed" or the
        server is "killed". With `hidden` it is not told.
        """
        place = pathlib.Path(tempfile.mkdtemp(dir=self.place, prefix=f"{life}-{at}-{eio}-"))
        top, wishes = place / "top", {}
        if life == "second":
            shutil.copytree(self.before, top)
            wishes = copy.deepcopy(self.known)
        else:
            (top / "copies").mkdir(parents=True)
        # Folders above are missing too, as in a new home.
        disk, data = Disk(top), top / "share" / "data"
        notes = [place / "notes", place / "notes-backup"]
        binary = binary or self.binary

        def server(at, eio):
            failing = {"CRASH_EIO": eio, "CRASH_EIO_OF": of}
            failing |= ({"CRASH_HEALED": place / "healed"} if then else {}) | ({"CRASH_EIO_HIDDEN": 1} if hidden else {})
            environment = self.environment(top, notes[0], CRASH_AT=at, **failing)
            return Server(binary, data, 2, environment, place / "log", drain="0s", options=SETTINGS)

        environment = self.environment(top, notes[1], CRASH_AT=backup_at, CRASH_EIO=backup_eio, CRASH_EIO_OF=of)
        backup = Backup(binary, data, top / "copies" / "backup.db", environment, backup_at, may_fail=eio or backup_eio)
        first = server(at, eio)
        if then:
            first.remedy = first.process.kill if then == "killed" else (place / "healed").touch
        # Not every call tells that something is wrong.
        remedy = threading.Timer(REMEDY_SECONDS, first.remedy)
        remedy.start()
        refused = live(first, wishes, life, backup) if first.address else 0
        remedy.cancel()
        # With a power cut to come there is no last chance to make up for a flush that failed.
        first.kill() if eio or backup_at else first.stop()
        # One that does not get as far as to serve is started again, as people do.
        if again or eio and not first.address:
            second = server(0, 0)
            demand(second.address, "the server does not start again")
            live(second, wishes, f"{life}-again")
            second.kill()
        seed = f"{self.seed}.{life}.{at}.{eio}.{of}.{then}.{backup_at}.{backup_eio}"
        return Death(self.binary, place, disk, notes, wishes, refused, backup, seed)


class Death:
    """A life that is over, and what there is to find out about it."""

    def __init__(self, binary, place, disk, notes, wishes, refused, backup, seed):
        self.binary, self.place, self.disk, self.notes, self.seed = binary, place, disk, notes, seed
        self.wishes, self.refused, self.backup = wishes, refused, backup

    def replay(self, flushes=DISKS["strict"]):
        """The disk at the end, and what was done to it by the server, and by the backup."""
        disk = copy.deepcopy(self.disk)
        return disk, *(disk.replay(notes, flushes) if notes.exists() else [] for notes in self.notes)

    def losses(self, disks):
        """By the name of a disk what is wrong with what it has left, or nothing."""
        return {name: self.loss(name) for name in disks}

    def loss(self, name):
        disk, *_ = self.replay(DISKS[name])
        left = pathlib.Path(tempfile.mkdtemp(dir=self.place)) / "left"
        disk.write(left, random.Random(self.seed) if name == "torn" else None)
        try:
            check(self.binary, left / "share" / "data", copy.deepcopy(self.wishes), left.parent / "log")
            if self.backup.known is not None:
                self.backup.check(self.binary, left / "copies", self.wishes)
        except Violation as violation:
            return f"{violation} (in {left})"
        shutil.rmtree(left.parent)
        return None

    def forget(self):
        """Gives its space back."""
        shutil.rmtree(self.place)

    def finish(self, where, disks=HONEST):
        """What came of it: where, how many calls were refused, what is lost on which disk."""
        losses = self.losses(disks)
        if not any(losses.get(name) for name in HONEST):
            self.forget()
        return where, self.refused, losses


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


_place = None


def begin(*arguments):
    """Makes a worker process ready."""
    global _place
    _place = Bench(*arguments)


def here():
    """The bench of this worker process."""
    return _place


def build(place):
    """Compiles the shim."""
    shim = place / "preload.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, HERE / "preload.c", "-ldl"], check=True)
    return shim


def main(name, about, sweep):
    """Runs a test of this folder: `sweep(workers, options, place)` says whether all is as it must be. Returns the exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--all", action="store_true", help="every case, however long it takes")
    options = parser.parse_args()
    print(f"crash: {name}, seed {options.seed}", flush=True)
    place = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix=f"longhaul-{name}-")))
    memory = pathlib.Path("/dev/shm")
    in_memory = memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES_MIN
    lives = pathlib.Path(tempfile.mkdtemp(prefix=f"longhaul-{name}-", dir=memory)) if in_memory else place
    shim = build(place)
    # Spawned, since a process that has used gRPC must not be forked.
    with concurrent.futures.ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("spawn"), begin, (options.binary, shim, lives, options.seed)
    ) as workers:
        try:
            good = sweep(workers, options, place)
        except Violation as violation:
            print(f"crash: {violation}")
            good = False
        if not good:
            workers.shutdown(cancel_futures=True)
    if good:
        shutil.rmtree(place)
        shutil.rmtree(lives, ignore_errors=True)
        return 0
    print(f"crash: {name} FAILED with seed {options.seed}; what is left lies in {lives}")
    return 1
