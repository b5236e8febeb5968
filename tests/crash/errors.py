"""Lets writes and flushes of the real binary fail, once and for good, and looks at what callers are told and what is left.

What fails is told to callers as of unknown outcome, or ends the server; what was acknowledged is there when the disk works again,
with or without a restart. A backup that met an error is not there. The mutants are a server and a backup that do not hear of it.
"""

import random
import sys

from bench import Tally, here, main
from client import Violation

SWEPT = ("first", "second")
# How many failures of each sort are tried, unless all are.
SAMPLE = 12
NAMES = {"W": "write", "S": "flush"}


def count(life):
    """How many writes and flushes the server and the backup make in an undisturbed life, and at which change a flush comes."""
    death = here().run(life)
    _, done, copied = death.replay()
    death.forget()
    kinds = [kind for kind, _ in done]
    flushes = [at for at, kind in enumerate(kinds, 1) if kind == "S"]
    return {"W": kinds.count("W"), "S": len(flushes)}, flushes, {kind: [kind for kind, _ in copied].count(kind) for kind in "WS"}


def fail(life, of, number, then, at):
    """One fails, or all from it on until something is done; then the power is cut, at the end or at a point soon after."""
    death = here().run(life, eio=number, of=of, then=then, at=at)
    ever = f" and all after it, until it is {then}" if then else ""
    return death.finish(f"{life} life, {NAMES[of]} {number} fails{ever}, cut at {at or 'the end'}")


def fail_unheard(life, of, number):
    """All fail from one on, and the server does not hear of it."""
    try:
        return here().run(life, eio=number, of=of, then="killed", hidden=True).finish("", ["strict"])
    except Violation as violation:
        # It shows before any power cut.
        return "", 0, {"strict": str(violation)}


def fail_backup(life, of, number):
    """One of the backup's fails."""
    death = here().run(life, of=of, backup_eio=number)
    failed = not death.backup.is_made
    where, _, losses = death.finish(f"{life} life, {NAMES[of]} {number} of the backup fails")
    return where, failed, losses


def sweep(workers, options, place):
    """All of it; whether everything is as it must be."""
    rng = random.Random(options.seed)

    def each(deed, cases):
        return workers.map(deed, *zip(*cases))

    def some(cases, many):
        return cases if options.all else rng.sample(cases, min(many, len(cases)))

    counted = dict(zip(SWEPT, workers.map(count, SWEPT)))
    tallies, caught = {}, {}
    for of, name in NAMES.items():
        numbers = [(life, number) for life in SWEPT for number in range(1, counted[life][0][of] + 1)]

        def soon(life, number):
            return rng.choice([0, counted[life][1][number - 1] + rng.randint(1, 12)]) if of == "S" else 0

        once = [(life, of, number, "", soon(life, number)) for life, number in some(numbers, SAMPLE)]
        tallies[f"a {name} once"] = Tally().add(each(fail, once))
        ever = [(life, of, number, then, 0) for life, number in some(numbers, SAMPLE // 2) for then in ("healed", "killed")]
        tallies[f"every {name}"] = Tally().add(each(fail, ever))
        copied = [(life, of, number) for life in SWEPT for number in range(1, counted[life][2][of] + 1)]
        tallies[f"a backup's {name}"] = Tally().add(each(fail_backup, some(copied, SAMPLE // 3)))
        # From the first half, so that something is acknowledged afterwards.
        unheard = [(life, of, rng.randint(1, counted[life][0][of] // 2)) for life in SWEPT for _ in range(3)]
        caught[name] = Tally().add(each(fail_unheard, unheard), mutant=True)

    lost = sum(tally.lost.total() for tally in tallies.values())
    tried = ", ".join(f"{what} {tally.deaths} (told at {tally.refused})" for what, tally in tallies.items())
    told = ", ".join(f"{name} at {tally.lost['strict']} of {tally.deaths}" for name, tally in caught.items())
    print(f"crash: errors of {tried}, each on a strict and a torn disk: {lost} lost; unheard, they lose: {told}")
    told = all(tally.refused for tally in tallies.values())
    return lost == 0 and told and all(tally.lost["strict"] for tally in caught.values())


if __name__ == "__main__":
    sys.exit(main("errors", __doc__, sweep))
