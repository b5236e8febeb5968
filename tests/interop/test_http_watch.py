"""Watches over server-sent events, held to what gRPC says of the same jobs."""

import http.client
import json
import re

import pytest
import web
from client import Job, history, kept, simulate, states
from conftest import WAIT
from http_jobs import JOBS, KINDS, NAMES, finished, job_of, lease, parsed, waiting
from longhaul.v1 import job_pb2, job_service_pb2, worker_service_pb2
from web import ask, query


# Watching one job.


def named(event):
    """An event of a watch as the contract's message, held to its name and its id."""
    message = parsed(event.data, job_pb2.JobEvent)
    assert (event.event, event.id) == (NAMES[message.WhichOneof("event")], str(message.sequence))
    return message


def test_a_watch_tells_all_that_grpc_tells(server):
    job = server.jobs.StartJob(simulate({"seconds": 0.6, "prompt": "a few words to say", "chaos": {"error": 0.5}, "seed": 14}))

    with web.events(server, f"{JOBS}/{job.id}:watch?afterSequence=0&minimumInterval=0.05s") as stream:
        messages = [named(event) for event in stream]

    assert messages[0].HasField("snapshot") and messages[0].sequence == 0
    assert kept(messages) == history(server, job)
    assert states(messages)[-1] in ("SUCCEEDED", "FAILED") and any(m.HasField("progress") for m in messages)


def test_a_watch_without_a_cursor_begins_with_what_is(server):
    job = finished(server, input={"prompt": "one two"})

    [event] = web.all_events(server, f"{JOBS}/{job.id}:watch")
    basic = named(event).snapshot.job
    [event] = web.all_events(server, f"{JOBS}/{job.id}:watch?view=FULL")

    assert named(event).snapshot.job == job and event.id == str(job.sequence)
    assert not basic.HasField("input") and not basic.HasField("result")


def test_a_watch_may_leave_out_the_output(server):
    job = finished(server, input={"prompt": "one two"})

    told = [named(event) for event in web.all_events(server, f"{JOBS}/{job.id}:watch?afterSequence=0&omitOutput=true")]

    assert kept(told) == [event for event in history(server, job) if not event.HasField("output")]


@pytest.mark.parametrize("address", ["", "?afterSequence=0", "?after_sequence=1"])
def test_the_last_event_is_where_a_watch_goes_on(server, address):
    job = finished(server, input={"prompt": "one two three"})

    for last in range(job.sequence):
        told = [named(event) for event in web.all_events(server, f"{JOBS}/{job.id}:watch{address}", last)]
        assert told[0].HasField("snapshot") and told[0].sequence == last
        assert told[1:] == history(server, job)[last:]


def test_a_last_event_that_is_empty_is_none(server):
    job = finished(server)

    told = web.all_events(server, f"{JOBS}/{job.id}:watch?afterSequence=2", last="")

    assert [event.id for event in told] == ["2", *(str(n) for n in range(3, job.sequence + 1))]


def test_whoever_has_seen_the_end_is_sent_away(server):
    """An EventSource takes the end of a stream for a break, and would come again for ever."""
    job = finished(server)

    answer = ask(server, "GET", f"{JOBS}/{job.id}:watch", headers=[("last-event-id", job.sequence)])

    assert (answer.status, answer.body) == (204, b"")
    assert len(web.all_events(server, f"{JOBS}/{job.id}:watch?afterSequence={job.sequence}")) == 1, "who is new gets to see it"


@pytest.mark.parametrize("where", ["in the address", "in the header"])
@pytest.mark.parametrize("state", ["PENDING", "SUCCEEDED"])
def test_a_cursor_ahead_of_the_job_begins_anew(server, where, state):
    job = waiting(server) if state == "PENDING" else finished(server)
    ahead = 9_223_372_036_854_775_807
    address = f"?afterSequence={ahead}" if where == "in the address" else "?afterSequence=0"

    with web.events(server, f"{JOBS}/{job.id}:watch{address}", ahead if where == "in the header" else None) as stream:
        first = named(next(stream))

    # As its address says, where that is not ahead as well: with all that there is, or with what happens from now on.
    begin = 0 if where == "in the header" else first.snapshot.job.sequence
    assert first.HasField("snapshot") and first.sequence == begin
    assert Job.State.Name(first.snapshot.job.state) == state


def test_a_job_that_is_forgotten_while_it_is_read_is_said_to_be(server):
    """More than all buffers between the two hold, so that the server still has some to read when the job is gone."""
    kind = f"long-{next(KINDS)}"
    job = job_of(ask(server, "POST", JOBS, {"kind": kind}))
    assignment, workers = lease(server, kind)
    piece, offset = b"x" * 2**18, 0
    while offset < 2**24:
        request = worker_service_pb2.AppendOutputRequest(lease_token=assignment.lease_token, offset=offset, data=piece)
        workers.AppendOutput(request, timeout=WAIT)
        offset += len(piece)
    complete = worker_service_pb2.CompleteJobRequest(lease_token=assignment.lease_token, result_json="null")
    workers.CompleteJob(complete, timeout=WAIT)

    with web.events(server, f"{JOBS}/{job.id}:watch?afterSequence=0", receives=2**16) as stream:
        assert next(stream).event == "snapshot"
        assert ask(server, "DELETE", f"{JOBS}/{job.id}").status == 204
        told = list(stream)

    assert {event.event for event in told[:-1]} <= {"stateChange", "output"}
    assert [event.id for event in told[:-1]] == [str(n) for n in range(1, len(told))], "nothing is left out before"
    assert told[-1].event == "problem" and told[-1].id is None
    problem = json.loads(told[-1].data)
    assert (problem["status"], problem["reason"]) == (404, "JOB_NOT_FOUND")


def test_a_reader_is_asked_to_come_again_soon(server):
    job = finished(server)

    answer = ask(server, "GET", f"{JOBS}/{job.id}:watch")

    assert answer.body.startswith(b"retry: 1000\n\n") and re.fullmatch(rb"(?s).*\n\n", answer.body)


# Watching many jobs.


def test_many_jobs_are_watched_from_what_is_there_to_what_changes(start_server):
    server = start_server()
    before = [waiting(server, labels={"team": "a"}) for _ in range(3)]
    waiting(server, labels={"team": "b"})
    ended = finished(server, labels={"team": "a"})
    filter = {"filter.labels.team": "a", "filter.states": ["PENDING", "SUCCEEDED"]}
    parameters = {**filter, "initialJobs": 3, "minimumInterval": "0.01s"}

    with web.events(server, f"{JOBS}:watch?{query(parameters)}") as stream:

        def told():
            event = next(stream)
            message = parsed(event.data, job_service_pb2.WatchJobsResponse)
            assert event.id is None, "it cannot be resumed, but begins anew"
            names = {"forgotten_job_id": "forgottenJobId"}
            which = message.WhichOneof("event")
            assert event.event == names.get(which, which)
            return which, getattr(message, which)

        shown = [told() for _ in range(3)]
        assert [which for which, _ in shown] == ["job"] * 3
        assert [job.id for _, job in shown] == [ended.id, before[2].id, before[1].id], "newest first"
        ended.ClearField("input"), ended.ClearField("result")
        assert shown[0][1] == ended
        assert told()[0] == "synced"

        waiting(server, labels={"team": "b"})
        later = job_of(ask(server, "POST", JOBS, {"kind": "nobody-does-this", "labels": {"team": "a"}}))
        which, job = told()
        assert (which, job.id) == ("job", later.id), "the one that does not match is not told of"

        ask(server, "POST", f"{JOBS}/{later.id}:cancel")
        which, job = told()
        assert (which, job.id, job.state) == ("departed", later.id, Job.CANCELLED)

        ask(server, "DELETE", f"{JOBS}/{ended.id}")
        assert told() == ("forgotten_job_id", ended.id)


def test_a_quiet_stream_shows_that_it_is_alive(start_server):
    """In a comment, of which no reader is told. Both streams wait at the same time."""
    server = start_server()
    job = waiting(server)
    with web.connect(server) as one, web.connect(server) as many:
        one.sendall(web.written("GET", f"{JOBS}/{job.id}:watch"))
        many.sendall(web.written("GET", f"{JOBS}:watch"))

        for stream in (one, many):
            response, told = http.client.HTTPResponse(stream), []
            response.begin()
            while not told or not told[-1].startswith(b":"):
                told.append(response.readline())
            assert told.count(b": nothing new\n") == 1 and response.readline() == b"\n"
            response.close()
