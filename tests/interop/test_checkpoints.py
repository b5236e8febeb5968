"""Workers that record where they are: whatever ends an attempt, the next one goes on from there."""

import os
import signal

import foreign
import pytest
from client import history, kept, rendered, states, status, watch
from conftest import Server, until
from longhaul.v1 import job_service_pb2
from programs import start
from test_programs import worker  # noqa: F401  (a fixture)
from test_workers import AT_ONCE, Crew, of

PYTHON = [form for form in foreign.FORMS if form[0] == "python"]


@pytest.fixture
def server(tmp_path):
    """A server whose leases last two seconds, on a port that it comes back to."""
    server = Server(tmp_path, "--lease-duration", "2s")
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture(params=PYTHON, ids=" ".join)
def crew(request, tmp_path):
    crew = Crew(tmp_path, *request.param)
    yield crew
    for each in crew.workers:
        each.close()


def comes_back(server):
    """The server is killed, and another takes over its folder and its port."""
    server.kill()
    server.listen = server.address
    server.start()


def resets(messages):
    return [(reset.channel, reset.kept_bytes) for reset in of(messages, "output_reset")]


def test_a_worker_that_is_killed_between_two_checkpoints_goes_on_from_the_last(server, crew):
    crew.worker(server.address)

    job = crew.job(
        server,
        {"output": "töne, ", "attempt": 1},
        {"checkpoint": "after one", "attempt": 1},
        {"output": "two, ", "attempt": 1},
        {"output": "why", "channel": "reasoning", "attempt": 1},
        {"checkpoint": "after two", "keep": 7, "attempt": 1},
        {"crash": True, "attempt": 1},
        {"output": "three"},
        {"result": {}},
        options=AT_ONCE,
    )
    crew.workers[0].tells("crash", job=job.id)
    late = crew.worker(server.address)
    messages = watch(server, job)

    assigned = late.tells("assigned", job=job.id)
    assert (assigned["checkpoint"], assigned["output_offset"]) == ("after two", 7)
    assert set(resets(messages)) == {("", 7), ("reasoning", 0)}
    assert rendered(messages) == "töne, three" and states(messages)[-1] == "SUCCEEDED"
    assert kept(messages) == history(server, job)


def test_a_server_that_is_killed_knows_the_checkpoint(server, crew):
    first = crew.worker(server.address)
    job = crew.job(
        server,
        {"output": "one, ", "attempt": 1},
        {"checkpoint": "after one", "attempt": 1},
        {"output": "lost", "attempt": 1},
        {"crash": True, "attempt": 1},
        {"output": "two"},
        {"result": {}},
        options=AT_ONCE,
    )
    first.tells("crash", job=job.id)

    comes_back(server)
    late = crew.worker(server.address)
    messages = watch(server, job)

    assigned = late.tells("assigned", job=job.id)
    assert (assigned["checkpoint"], assigned["output_offset"]) == ("after one", 5)
    assert rendered(messages) == "one, two" and resets(messages) == [("", 5)]


def test_an_attempt_goes_on_recording_over_a_kill_of_the_server(server, crew):
    crew.worker(server.address)
    gate = crew.gate("go")
    job = crew.job(
        server,
        {"output": "one, "},
        {"checkpoint": "after one"},
        {"wait_for": str(gate)},
        {"output": "two"},
        {"checkpoint": "after two"},
        {"fail": "FLAKY", "attempt": 1},
        {"result": {}},
        options=AT_ONCE,
    )
    crew.workers[0].tells("recorded", job=job.id)

    comes_back(server)
    gate.touch()
    messages = watch(server, job)

    crew.workers[0].tells("recorded", job=job.id, number=2)
    assert resets(messages) == [("", 8)] and states(messages)[-1] == "SUCCEEDED"
    assert rendered(messages) == "one, twoone, two" and kept(messages) == history(server, job)


def test_a_checkpoint_cannot_keep_what_is_not_there(server, crew):
    crew.worker(server.address)

    job = crew.job(server, {"output": "four"}, {"checkpoint": "x", "keep": 5}, {"result": {}})

    assert crew.workers[0].tells("refused", job=job.id)["reason"] == "CHECKPOINT_AHEAD"


@pytest.mark.parametrize("bytes_kept", [5, 2**20, 2**20 + 1])
def test_a_job_that_is_retried_goes_on_from_the_checkpoint(server, crew, bytes_kept):
    worker = crew.worker(server.address)
    carried = bytes_kept <= 2**20
    first = crew.job(
        server,
        {"output": "lost", "attempt": 1},
        {"fail": "FLAKY", "attempt": 1},
        *({"output": "x", "times": min(65_536, bytes_kept - at)} for at in range(0, bytes_kept, 65_536)),
        {"checkpoint": "so far"},
        {"output": "and more"},
        {"fail": "NO_USE", "permanent": True},
        options=AT_ONCE,
    )
    watch(server, first)
    before = history(server, first)

    again = server.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=first.id), timeout=30)
    assigned = worker.tells("assigned", job=again.id)
    messages = watch(server, again)

    expected = ("so far", bytes_kept) if carried else ("", 0)
    assert (assigned["checkpoint"], assigned["output_offset"]) == expected
    assert before == history(server, first), "what has ended stays as it ended"
    begins = [event for event in history(server, again) if event.HasField("output") and event.attempt == 0]
    assert b"".join(event.output.data for event in begins) == b"x" * expected[1]
    assert kept(messages) == history(server, again)


COUNTS = """
    state = job.get("checkpoint") or {"next": 1}
    say(log=f"from {state['next']} at {job.get('output_offset', 0)}")
    for number in range(state["next"], 6):
        if number == 4 and job["attempt"] == 1:
            say(output="lost ")
            until_killed()
        say(output=f"{number} ", checkpoint={"next": number + 1})
    say(result=state["next"])
"""
"""Counts to five, and is stuck in its first attempt before the fourth number."""


def test_a_program_that_is_killed_goes_on_from_its_checkpoint(server, worker):  # noqa: F811
    begun = worker(server, COUNTS.replace("until_killed()", "time.sleep(600)"))
    job = start(server, worker.kind, options=AT_ONCE)
    until(lambda: any(event.output.data.endswith(b"lost ") for event in history(server, job)), "the fourth number")

    for program in begun.programs():
        os.kill(program, signal.SIGKILL)
    messages = watch(server, job)

    assert rendered(messages) == "1 2 3 4 5 " and resets(messages) == [("", 6)]
    assert [log.message for log in of(messages, "log")] == ["from 1 at 0", "from 4 at 6"]
    assert status(server, job).result.number_value == 4


def test_a_supervisor_that_is_killed_and_a_server_that_is_leave_the_checkpoint(server, worker):  # noqa: F811
    begun = worker(server, COUNTS.replace("until_killed()", "time.sleep(600)"))
    job = start(server, worker.kind, options=AT_ONCE)
    until(lambda: any(event.output.data.endswith(b"lost ") for event in history(server, job)), "the fourth number")

    begun.close()
    comes_back(server)
    worker(server, COUNTS)
    messages = watch(server, job)

    assert rendered(messages) == "1 2 3 4 5 " and resets(messages) == [("", 6)]


def test_a_program_may_begin_anew_and_keep_less_than_there_is(server, worker):  # noqa: F811
    worker(
        server,
        """
        match job["attempt"]:
            case 1: say(output="abc", checkpoint="a", output_bytes=1); sys.exit(75)
            case 2: say(log=json.dumps(job["checkpoint"]), output="x", checkpoint=None); sys.exit(75)
            case 3: say(log=str("checkpoint" in job), output="whole")
        """,
    )

    job = start(server, worker.kind, options=AT_ONCE)
    messages = watch(server, job)

    assert resets(messages) == [("", 1), ("", 0)] and rendered(messages) == "whole"
    assert [log.message for log in of(messages, "log")] == ['"a"', "False"]
