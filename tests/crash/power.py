"""Cuts the power at every point of two scripted lives of the real binary and of a backup, and looks at what a disk has left.

Mutants show that all this can fail: binaries that do not flush, or not each commit, and disks that take no notice of flushes,
all of them or those of the folders in which something was renamed.
"""

import random
import sys
import time

from bench import HONEST, Tally, here, main
from client import demand

# How long it may take; past it, only some of the points are tried.
SECONDS_MAX = 80
# How many of the other cases are tried, unless all are.
SAMPLE = 12
# The lives that are swept point by point, and one with so much in it that a checkpoint runs beside it.
SWEPT = ("first", "second")
LIVES = (*SWEPT, "large")
LIARS = ("no flush", "no flush of the log", "no flush of folders")
# What a binary says to SQLite, and mutants of it. The texts are of one length.
FLUSHED = b"synchronous=FULL"
UNFLUSHED = {"synchronous=OFF": b"synchronous=OFF ", "synchronous=NORMAL": b"synchronous=1   "}


def count(life):
    """The changes of an undisturbed life by kind and path: the server's, and the backup's."""
    death = here().run(life)
    disk, done, copied = death.replay()
    demand(not disk.differs(), "preload.c does not see all that is done to", disk.differs())
    losses = [loss for loss in death.losses(HONEST).values() if loss]
    demand(not losses, "an undisturbed life loses", losses)
    return done, copied


def cut(life, at, disks=HONEST, binary=None):
    """A power cut at one point: what is lost, on which disk."""
    return here().run(life, binary=binary, at=at).finish(f"{life} life, change {at}", disks)


def cut_backup(life, at, disks=HONEST):
    """A power cut while a backup is made, or at the end of it all."""
    return here().run(life, backup_at=at).finish(f"{life} life, change {at or 'the last'} of the backup", disks)


def cut_later(life, at):
    """The server dies at one point, another goes on in its place, and then the power is cut."""
    return here().run(life, at=at, again=True).finish(f"{life} life, killed at change {at} and started again")


def sweep(workers, options, place):
    """All of it; whether everything is as it must be."""
    rng = random.Random(options.seed)

    def each(deed, cases):
        return workers.map(deed, *zip(*cases))

    def some(cases, many=SAMPLE):
        return cases if options.all else rng.sample(cases, min(many, len(cases)))

    began = time.monotonic()
    counted = dict(zip(LIVES, workers.map(count, LIVES)))
    changes = {life: done for life, (done, _) in counted.items()}
    points = [(life, at) for life in SWEPT for at in range(1, len(changes[life]) + 1)]
    rng.shuffle(points)
    tries, rest = points[:20], points[20:]
    tried = time.monotonic()
    cuts = Tally().add(each(cut, tries))
    each_takes = (time.monotonic() - tried) / len(tries)

    # The log is moved into the database beside the writer: from the first page moved to the flush after the last.
    moved = [at for at, (_, path) in enumerate(changes["large"], 1) if path.endswith("longhaul.db") and "store.new" not in path]
    demand(len(moved) > 1000, "the large life's log is not moved into the database")
    cuts.add(each(cut, [("large", at) for at in rng.sample(range(moved[0] - 5, moved[-1] + 20), SAMPLE // 2)]))

    # The whole way of a new store to its place, and some points of the rest.
    placed = next(at for at, (kind, _) in enumerate(changes["first"], 1) if kind == "R")
    later = [("first", at) for at in [*range(1, 12), *range(placed - 5, placed + 12)]]
    later = Tally().add(each(cut_later, some(later) + rng.sample(points, SAMPLE // 2 if not options.all else 5 * SAMPLE)))

    # The backup's whole way to its place, and its end, where it was told to be made.
    copies = [(life, at) for life in SWEPT for at in range(len(counted[life][1]) + 1)]
    ends = [(life, len(counted[life][1]) - back) for life in SWEPT for back in range(4)] + [(life, 0) for life in SWEPT]
    copied = Tally().add(each(cut_backup, some(copies, SAMPLE // 2) + rng.sample(ends, SAMPLE // 2)))

    caught = Tally()
    for name, text in UNFLUSHED.items():
        mutant = place / name
        data = options.binary.read_bytes()
        demand(data.count(FLUSHED) > 0, "the binary does not have the text", FLUSHED)
        mutant.write_bytes(data.replace(FLUSHED, text))
        mutant.chmod(0o755)
        lost = Tally().add(each(cut, [(*point, ["strict"], mutant) for point in rng.sample(points, SAMPLE // 2)]), mutant=True)
        caught.lost[name], caught.looked[name] = lost.lost["strict"], lost.looked["strict"]
    caught.add(each(cut, [(*point, LIARS) for point in rng.sample(points, SAMPLE // 2)]), mutant=True)
    renamed = range(placed + 1, len(changes["first"]) + 1)
    unplaced = [("first", at, ["no flush after the store's rename"]) for at in rng.sample(renamed, SAMPLE // 2)]
    caught.add(each(cut, unplaced), mutant=True)
    caught.add(each(cut_backup, [(life, 0, ["no flush after the backup's rename"]) for life in SWEPT]), mutant=True)

    # What is left of the time is for the points.
    left = SECONDS_MAX - (time.monotonic() - began)
    many = len(rest) if options.all else max(0, min(len(rest), int(left / each_takes)))
    cuts.add(each(cut, rest[:many])) if many else None

    lost = sum(tally.lost.total() for tally in (cuts, later, copied))
    told = ", ".join(f"{name} at {caught.lost[name]} of {caught.looked[name]}" for name in sorted(caught.looked))
    print(
        f"crash: {cuts.deaths} kill points ({len(tries) + many} of the {len(points)} of two lives), {later.deaths} with another life "
        f"before the power cut, {copied.deaths} of a backup, each on a strict and a torn disk: {lost} lost; mutants lose: {told}"
    )
    return lost == 0 and all(caught.lost[name] for name in caught.looked)


if __name__ == "__main__":
    sys.exit(main("power", __doc__, sweep))
