"""Tells a leak from a level, by what was seen of a server.

Memory and disk have to level off: of what was seen after a warm-up, the middle value of the last third may be above that of the
first third by a tenth and some slack. Descriptors and threads have to come back in every calm to what they were before the load,
or in the first calm.
"""

import collections
import statistics

MIB = 1 << 20
# What may be added after the warm-up beside a tenth: caches that fill, arenas, pages that are free.
SLACK = {"memory": 24 * MIB, "disk": 3 * MIB}
# The log of the store is moved into the database from 16 MiB on, while others go on writing.
LOG_MAX = 64 * MIB
# What may stay open after the first load: connections to the store and threads that are made when they are first needed.
STAYS_FIRST = {"descriptors": 16, "threads": 4}
# The same after later ones.
STAYS = {"descriptors": 4, "threads": 2}
# A forgotten job's request id is remembered for a day, in two tables.
REQUEST_ID_BYTES = 200
SAMPLES_MIN = 9

# A calm: the figures that it is to come back to, what may stay beside, and the figures at its end.
Calm = collections.namedtuple("Calm", "before stays after")


def grown(points):
    """By how much the last third of (time, value) is above the first, and how much that was; nothing for too few."""
    third = len(points) // 3
    if len(points) < SAMPLES_MIN:
        return 0, 0
    first = statistics.median(value for _, value in points[:third])
    return statistics.median(value for _, value in points[-third:]) - first, first


def left(calm):
    """Which figures of a calm server are above what they were before."""
    return [name for name, stays in calm.stays.items() if getattr(calm.after, name) > getattr(calm.before, name) + stays]


def verdicts(samples, calms, warm, request_ids):
    """What leaks, in words.

    `samples` of lives count from `warm` on, which has the time for each: memory within its life, disk over all of them.
    `request_ids` is how many of them are remembered.
    """
    found = []
    lives = collections.defaultdict(list)
    for sample in samples:
        if sample.time >= warm["disk"]:
            lives["disk"].append((sample.time, sample.disk))
        if sample.time >= warm["memory"].get(sample.life, float("inf")):
            lives["memory", sample.life].append((sample.time, sample.memory))
    for key, points in sorted(lives.items(), key=str):
        name = key if key == "disk" else key[0]
        more, first = grown(points)
        allowed = first / 10 + SLACK[name] + (request_ids * REQUEST_ID_BYTES if name == "disk" else 0)
        if more > allowed:
            found.append(f"{name} grows by {more / MIB:.1f} MiB from {first / MIB:.1f} MiB; {allowed / MIB:.1f} are allowed")
    log = max((sample.log for sample in samples), default=0)
    if log > LOG_MAX:
        found.append(f"the log of the store had {log / MIB:.1f} MiB")
    for calm in calms:
        for name in left(calm):
            before, after = getattr(calm.before, name), getattr(calm.after, name)
            found.append(f"{after} {name} in a calm, {before} before; {calm.stays[name]} more are allowed")
    return found


def leaking(samples, calms, name, a_minute):
    """The same figures of a server that leaks besides so much of `name` a minute, in each life from its begin."""
    begins = {}
    for sample in samples:
        begins.setdefault(sample.life if name != "disk" else 0, sample.time)

    def more(seen):
        minutes = (seen.time - begins[seen.life if name != "disk" else 0]) / 60
        return seen._replace(**{name: getattr(seen, name) + a_minute * minutes})

    return [more(sample) for sample in samples], [calm._replace(before=more(calm.before), after=more(calm.after)) for calm in calms]


def sharpness(samples, calms, warm, request_ids, name):
    """The smallest leak of `name` a minute, among powers of two, that would have been seen; nothing where none would."""
    for power in range(40):
        if verdicts(*leaking(samples, calms, name, 1 << power), warm, request_ids):
            return 1 << power
    return None
