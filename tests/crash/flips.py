"""Flips a byte anywhere in the store of the real binary: it is found or does no harm, and nobody gets a wrong answer.

Two folders are read whole, one that a server closed and one with a log that a killed one left; then copies of them with one byte
changed. A server that does not start has to say why; a call that fails has to say that it is the store; all other answers are as
before.

The mutants are a binary that does not look through its store at the start, a record that was changed together with its checksum,
and the last commit of a log, where a flip looks like what a power cut tears.
"""

import collections
import contextlib
import pathlib
import random
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
import zlib

import grpc
from google.protobuf import json_format

from bench import here, main
from client import Server, connect, demand, history, pages, service_pb2
from life import live

# How long it may take, unless all bytes are flipped.
SECONDS_MAX = 40
FAULTS = (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
# What changes from one start to the next.
VOLATILE = ("queueDuration", "runDuration", "queuePosition")
SETTINGS = ("--lease-duration", "600s")
DATABASE, LOG = "store/longhaul.db", "store/longhaul.db-wal"
# A kind as it stands in the index by which jobs are found, and what is asked of that.
SHELVED, KINDS = b"nobody.servesdefault", ("nobody.serves", "simulate", "logged", "another")
# How a binary looks through its store, and a mutant that does not.
LOOKS, LOOKS_NOT = b"PRAGMA integrity_check(1)", b"SELECT 'ok'              "


def make(kind):
    """A folder with jobs of all sorts, and the calls of which a client knows the answer."""
    bench = here()
    data, wishes = pathlib.Path(tempfile.mkdtemp(dir=bench.place)) / "data", {}
    server = Server(bench.binary, data, 2, options=SETTINGS)
    live(server, wishes, "life")
    server.kill()
    # What ran here is given back now, and not at each start anew.
    server = Server(bench.binary, data, 0, options=SETTINGS)
    if kind == "closed":
        server.stop()
    else:
        live_again(server)
        server.kill()
    for shared in data.rglob("*-shm"):
        shared.unlink()
    requests = [wish.request for wish in wishes.values() if wish.request.request_id and not wish.may_be_gone]
    return str(data), [request.SerializeToString() for request in requests]


def live_again(server):
    """Some changes that are in the log alone."""
    channel, stub = connect(server.address)
    for number in range(5):
        request = service_pb2.StartJobRequest(kind="logged", request_id=f"logged-{number}", input_json='{"a":1}')
        job = stub.StartJob(request, timeout=10)
        if number % 2:
            stub.CancelJob(service_pb2.CancelJobRequest(job_id=job.id), timeout=10)
    channel.close()


def shown(message):
    """A message as it is compared."""
    text = json_format.MessageToDict(message)
    for name in VOLATILE:
        text.pop(name, None)
    return text


class Asked:
    """What a server answers to all that can be asked of it."""

    def __init__(self, server, tickets, requests):
        self.answers = {}
        channel, self.stub = connect(server.address)
        self.ask("list", lambda: {job.id: shown(job) for job in pages(self.stub.ListJobs, service_pb2.ListJobsRequest(page_size=1000))})
        tickets = tickets or list(self.answers["list"])
        for ticket in tickets:
            request = service_pb2.GetStatusRequest(job_id=ticket)
            self.ask(f"status {ticket}", lambda: shown(self.stub.GetStatus(request, timeout=10)))
            self.ask(f"history {ticket}", lambda: [shown(event) for event in history(self.stub, ticket)])
        for state in range(1, 10):
            request = service_pb2.ListJobsRequest(page_size=1000)
            request.filter.states.append(state)
            self.ask(f"state {state}", lambda: sorted(job.id for job in pages(self.stub.ListJobs, request)))
        for kind in KINDS:
            of_kind = service_pb2.ListJobsRequest(page_size=1000)
            of_kind.filter.kinds.append(kind)
            self.ask(f"kind {kind}", lambda: [job.id for job in pages(self.stub.ListJobs, of_kind)])
        for text in requests:
            request = service_pb2.StartJobRequest.FromString(text)
            labelled = service_pb2.ListJobsRequest(page_size=1000)
            labelled.filter.labels.update(request.labels)
            self.ask(f"label {request.labels['wish']}", lambda: [job.id for job in pages(self.stub.ListJobs, labelled)])
        self.ask("counts", lambda: sorted(map(str, self.stub.CountJobs(service_pb2.CountJobsRequest(), timeout=10).counts)))
        for text in requests:
            request = service_pb2.StartJobRequest.FromString(text)
            self.ask(f"repeat {request.request_id}", lambda: self.stub.StartJob(request, timeout=10).id)
        self.ask("start", lambda: self.stub.StartJob(service_pb2.StartJobRequest(kind="another"), timeout=10).id not in tickets)
        channel.close()

    def ask(self, question, call):
        """Asks; the answer, or the code of a fault."""
        try:
            self.answers[question] = call()
        except grpc.RpcError as error:
            self.answers[question] = error.code()


def ask(folder, tickets, requests, binary=None):
    """All answers of a server on a folder, or none where it does not start; and its log."""
    log = folder / "log"
    server = Server(binary or here().binary, folder / "data", 0, log=log, options=SETTINGS)
    try:
        asked = Asked(server, tickets, requests).answers if server.address else None
    finally:
        server.kill()
    return asked, log.read_text(errors="replace")


def pristine(data, requests):
    """The right answers, which are the same from one start to the next."""
    found = []
    for _ in range(2):
        folder = pathlib.Path(tempfile.mkdtemp(dir=here().place))
        shutil.copytree(data, folder / "data")
        asked, log = ask(folder, None if not found else list(found[0]["list"]), requests)
        demand(asked, "the store does not open:", log)
        found.append(asked)
    differ = [question for question in found[0] if found[0][question] != found[1][question]]
    demand(not differ, "answers differ without a flip:", differ, [(found[0][q], found[1][q]) for q in differ[:2]])
    return found[0]


def flip(data, file, offset, mask, right, requests, binary=None):
    """One flip: where, what came of it, and what is wrong."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=here().place))
    shutil.copytree(data, folder / "data")
    with open(folder / "data" / file, "r+b") as bytes_of:
        bytes_of.seek(offset)
        byte = bytes_of.read(1)[0]
        bytes_of.seek(offset)
        bytes_of.write(bytes([byte ^ mask]))
    return judge(folder, f"{file} at {offset} ^ {mask}", right, requests, binary)


def forge(data, right, requests):
    """Changes a byte of the output in some event, and its checksum likewise if that is to fit."""
    results = []
    for fits in (False, True):
        folder = pathlib.Path(tempfile.mkdtemp(dir=here().place))
        shutil.copytree(data, folder / "data")
        with contextlib.closing(sqlite3.connect(folder / "data" / DATABASE)) as database:
            rows = database.execute("SELECT ordinal, sequence, record FROM events").fetchall()
            ordinal, sequence, record = next(row for row in rows if b"some " in row[2])
            record = record.replace(b"some ", b"same ")
            if fits:
                place = b"event" + struct.pack("<qQ", ordinal, sequence)
                record = record[:-4] + struct.pack("<I", zlib.crc32(place + record[:-4]))
            database.execute("UPDATE events SET record = ? WHERE (ordinal, sequence) = (?, ?)", (record, ordinal, sequence))
            database.commit()
        results.append(judge(folder, "a forged event", right, requests)[1])
    return results


def judge(folder, where, right, requests, binary=None):
    """What became of a folder: where, what came of it, and what is wrong."""
    asked, log = ask(folder, list(right["list"]), requests, binary)
    shutil.rmtree(folder)
    if "panicked" in log:
        return where, "wrong", ["it panics: " + log[log.index("panicked") :][:200]]
    if asked is None:
        return where, "does not start", [] if log.strip() else ["it does not say why"]
    wrong = wrongs(asked, right)
    if wrong:
        return where, "wrong", wrong
    return where, "found" if any(answer in FAULTS for answer in asked.values() if not isinstance(answer, (dict, list))) else "harmless", []


def wrongs(asked, right):
    """The questions with a wrong answer. A list may lack what is known to be damaged."""
    faulty = {question.split()[1] for question, answer in asked.items() if question.startswith("status ") and known(answer)}
    wrong = []
    for question, answer in asked.items():
        expected = right[question]
        if known(answer):
            continue
        if question == "list" and isinstance(answer, dict):
            expected = {ticket: job for ticket, job in expected.items() if ticket in answer or ticket not in faulty}
        elif question.startswith(("state ", "label ", "kind ")) and isinstance(answer, list):
            expected = [ticket for ticket in expected if ticket in answer or ticket not in faulty]
        if answer != expected:
            wrong.append(f"{question}: {difference(answer, expected)}")
    return wrong


def difference(answer, expected):
    """An answer and the right one, as far as they differ."""
    if isinstance(answer, dict) and isinstance(expected, dict):
        names = [name for name in {**answer, **expected} if answer.get(name) != expected.get(name)]
        return "; ".join(f"{name}: {str(answer.get(name))[:80]} and not {str(expected.get(name))[:80]}" for name in names[:3])
    return f"{str(answer)[:150]} and not {str(expected)[:150]}"


def known(answer):
    return isinstance(answer, grpc.StatusCode) and answer in FAULTS


def commits(log):
    """Where each commit in a log ends."""
    data, page = log.read_bytes(), 4096
    ends = []
    for at in range(32, len(data) - 24 - page + 1, 24 + page):
        if data[at + 8 : at + 16] == data[16:24] and data[at + 4 : at + 8] != bytes(4):
            ends.append(at + 24 + page)
    return ends


def sweep(workers, options, place):
    """All of it; whether everything is as it must be."""
    rng, began = random.Random(options.seed), time.monotonic()
    cases, made = [], {}
    for kind in ("closed", "killed"):
        data, requests = workers.submit(make, kind).result()
        made[kind] = data, workers.submit(pristine, data, requests).result(), requests
    for file, kind in ((DATABASE, "closed"), (DATABASE, "killed"), (LOG, "killed")):
        data, right, requests = made[kind]
        path = pathlib.Path(data) / file
        # In the last commit of a log nobody can tell a flip from what a power cut tears, and in part that goes for the one before.
        size = commits(path)[-3] if file == LOG else path.stat().st_size
        cases += [(data, file, offset, rng.randrange(1, 256), right, requests) for offset in range(size)]
    mutants = unseen(workers, options, place, made, rng)
    rng.shuffle(cases)
    came, wrong, tried = collections.Counter(), [], 0
    for portion in range(0, len(cases), 20):
        if not options.all and time.monotonic() - began > SECONDS_MAX:
            break
        for where, what, why in workers.map(flip, *zip(*cases[portion : portion + 20])):
            tried += 1
            came[what] += 1
            wrong += [(where, why)] if why else []
            if why:
                print(f"crash: {where}: {'; '.join(why)[:600]}", flush=True)
    told = ", ".join(f"{count} {what}" for what, count in sorted(came.items()))
    caught = ", ".join(f"{name} at {wrongs} of {many}" for name, (wrongs, many) in mutants.items())
    print(f"crash: {tried} of {len(cases)} bytes flipped: {told}; {len(wrong)} wrong; mutants are wrong: {caught}")
    return not wrong and all(wrongs for wrongs, _ in mutants.values())


def unseen(workers, options, place, made, rng):
    """By the name of a mutant at how many flips it is wrong, and of how many; the honest binary finds those that it can."""
    data, right, requests = made["closed"]
    mutant = place / "looks-not"
    program = options.binary.read_bytes()
    demand(program.count(LOOKS) > 0, "the binary does not have the text", LOOKS)
    mutant.write_bytes(program.replace(LOOKS, LOOKS_NOT))
    mutant.chmod(0o755)
    content = (pathlib.Path(data) / DATABASE).read_bytes()
    places = [at for at in range(len(content)) if content.startswith(SHELVED, at)]
    places = rng.sample(places, min(4, len(places)))
    found = [result[1] for result in workers.map(flip, *zip(*((data, DATABASE, at, 1, right, requests) for at in places)))]
    demand(set(found) == {"does not start"}, "a flip in an index is", found)
    looked_not = [result[1] for result in workers.map(flip, *zip(*((data, DATABASE, at, 1, right, requests, mutant) for at in places)))]
    found, forged = workers.submit(forge, data, right, requests).result()
    demand(found == "found", "a flip in a record is", found)
    data, right, requests = made["killed"]
    ends = commits(pathlib.Path(data) / LOG)
    last = [(data, LOG, rng.randrange(ends[-2] + 24, ends[-1]), 1, right, requests) for _ in range(4)]
    torn = [result[1] for result in workers.map(flip, *zip(*last))]
    seen = {"not looking through": looked_not, "a checksum that is changed too": [forged], "the last commit of a log": torn}
    return {name: (results.count("wrong"), len(results)) for name, results in seen.items()}


if __name__ == "__main__":
    sys.exit(main("flips", __doc__, sweep))
