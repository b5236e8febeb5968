"""What becomes of a data folder in wrong hands: two servers on it, a crowd that starts at once, and those of versions before.

The second server says that the folder is in use, and the first is none the worse for it. After a kill the next takes over at once.
The fixtures in tests/store are folders of every version that there was, and of the present one. The mutants are folders whose lock
is not the same file, and a fixture that lacks a job.
"""

import concurrent.futures
import contextlib
import gzip
import pathlib
import re
import shutil
import sqlite3
import sys
import tempfile

from bench import SETTINGS, here, main
from client import ROOT, Server, Violation, all_jobs, check_history, connect, demand, history, service_pb2
from life import check, live

CROWD = 8
# Each life leaves a job that runs on.
SLOTS = 6
IN_USE = "is in use by another server"
FORGOTTEN = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
FIXTURES = ROOT / "tests" / "store" / "fixtures"


def folder():
    """A new place: a data folder to be, and a log."""
    place = pathlib.Path(tempfile.mkdtemp(dir=here().place))
    return place / "data", place / "log"


def second_server(seed):
    """A second server beside one that works, and one that follows a kill."""
    (data, log), wishes = folder(), {}
    first = Server(here().binary, data, SLOTS, options=SETTINGS)
    live(first, wishes, "first")
    second = Server(here().binary, data, SLOTS, log=log, options=SETTINGS)
    code = second.wait()
    demand(not second.address and code == 1, "a second server serves, or ends with", code)
    demand(str(data) in log.read_text() and IN_USE in log.read_text(), "a second server says", log.read_text())
    live(first, wishes, "goes-on")
    first.process.kill()
    # Nobody has waited for the first one's end.
    third = Server(here().binary, data, SLOTS, log=log, options=SETTINGS)
    if not third.address:
        # The lock goes with the process, which may take a moment to be gone.
        third.wait()
        first.wait()
        third = Server(here().binary, data, SLOTS, log=log, options=SETTINGS)
    demand(third.address, "nobody takes over:", log.read_text())
    live(third, wishes, "takes-over")
    third.kill()
    first.wait()
    check(here().binary, data, wishes, log)


def crowd(data_of):
    """Many servers at once on new folders: those that serve, and what the others say."""
    log = folder()[1]
    with concurrent.futures.ThreadPoolExecutor(CROWD) as starters:
        starting = [starters.submit(Server, here().binary, data_of(number), SLOTS, log=log) for number in range(CROWD)]
        servers = [one.result() for one in starting]
    winners = [server for server in servers if server.address]
    for server in servers:
        if not server.address:
            demand(server.wait() == 1, "a server that may not serve does not end in good order")
    return winners, log.read_text()


def crowd_on_one(seed):
    """Of many that start at once, one serves, and all that it was told is there."""
    data, log = folder()
    winners, said = crowd(lambda number: data)
    demand(len(winners) == 1, len(winners), "servers serve one folder")
    demand(said.count(IN_USE) == CROWD - 1, "the others say", said)
    live(winners[0], wishes := {}, "winner")
    winners[0].kill()
    check(here().binary, data, wishes, log)


def crowd_on_links(seed):
    """The mutant: all have one store, but each a lock of its own."""
    data, _ = folder()
    Server(here().binary, data, 0).stop()
    doors = [data.with_name(f"door-{number}") for number in range(CROWD)]
    for door in doors:
        door.mkdir()
        (door / "store").symlink_to(data / "store")
    winners, _ = crowd(lambda number: doors[number])
    for server in winners:
        server.kill()
    return len(winners) > 1


def versions():
    """The fixtures, by version."""
    return {int(re.search(r"\d+", path.name)[0]): path for path in FIXTURES.glob("version*.db.gz")}


def unpack(version):
    """A data folder with the fixture of a version."""
    data, log = folder()
    (data / "store").mkdir(parents=True)
    with gzip.open(versions()[version]) as packed, open(data / "store" / "longhaul.db", "wb") as database:
        shutil.copyfileobj(packed, database)
    return data, log


def rows(data):
    """What a store of any version tells people: its jobs by their id, with kind and state; and its version."""
    with contextlib.closing(sqlite3.connect(data / "store" / "longhaul.db")) as database:
        jobs = {job.hex(): (kind, state) for job, kind, state in database.execute("SELECT id, kind, state FROM jobs")}
        return jobs, database.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()[0]


def of_version(version, wound=None):
    """A server on the folder of a version has all of its jobs, shows each, and goes on with them."""
    data, log = unpack(version)
    before, found = rows(data)
    demand(found == version, "the fixture of version", version, "has version", found)
    if wound:
        with contextlib.closing(sqlite3.connect(data / "store" / "longhaul.db")) as database:
            database.executescript(wound)
    server = Server(here().binary, data, 0, log=log, options=SETTINGS)
    demand(server.address, "a store of version", version, "does not open:", log.read_text())
    channel, stub = connect(server.address)
    try:
        listed = {job.id.replace("-", ""): job for job in all_jobs(stub)}
        # What had ended is forgotten in its time; the fixtures from version 4 on keep it.
        gone = {ticket for ticket, (_, state) in before.items() if state in FORGOTTEN and version < 4} - listed.keys()
        before = {ticket: row for ticket, row in before.items() if ticket not in gone}
        demand(listed.keys() == before.keys(), "of version", version, "are listed", len(listed), "of", len(before))
        for ticket, job in listed.items():
            demand(job.kind == before[ticket][0], job.id, "is a", job.kind)
            shown = stub.GetStatus(service_pb2.GetStatusRequest(job_id=job.id), timeout=10)
            check_history(job.id, history(stub, job.id))
            demand(shown.labels == job.labels and shown.input is not None, job.id, "is shown otherwise than listed")
        counted = sum(count.jobs for count in stub.CountJobs(service_pb2.CountJobsRequest(), timeout=10).counts)
        demand(counted == len(before), counted, "jobs are counted of", len(before))
        stub.StartJob(service_pb2.StartJobRequest(kind="nobody.serves"), timeout=10)
    finally:
        channel.close()
        server.stop()
    after, now = rows(data)
    demand(len(after) == len(before) + 1, "a store of version", version, "has", len(after), "jobs")
    return now


def sweep(workers, options, place):
    """All of it; whether everything is as it must be."""
    deeds = [workers.submit(deed, options.seed) for deed in (second_server, crowd_on_one)]
    mutant = workers.submit(crowd_on_links, options.seed)
    opened = dict(zip(versions(), workers.map(of_version, versions())))
    for deed in deeds:
        deed.result()
    present = set(opened.values())
    demand(present == {max(opened)}, "the fixtures are of versions", sorted(opened), "and the present one is", *present)
    try:
        workers.submit(of_version, max(opened), "DELETE FROM jobs WHERE ordinal = (SELECT min(ordinal) FROM jobs)").result()
        lacks = False
    except Violation:
        lacks = True
    caught = mutant.result()
    print(
        f"crash: one of two servers and one of {CROWD} serve a folder, one that follows a kill has all of it; stores of versions "
        f"{sorted(opened)} open as version {max(opened)}; mutants caught: {caught:d} of 1 that locks another file, {lacks:d} of 1 that lacks a job"
    )
    return caught and lacks


if __name__ == "__main__":
    sys.exit(main("folder", __doc__, sweep))
