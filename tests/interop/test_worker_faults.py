"""Workers that die, servers that stand still or start anew: what becomes of the jobs that foreign workers run."""

import itertools
import os
import signal
import threading
import time

import foreign
import pytest
from client import Job, states, status, watch
from test_workers import AT_ONCE, Crew, of, rendered

LEASE = 2
"""Seconds."""
LOOK = 0.25
"""Seconds between two looks of the server at its leases."""
ALLOWANCE = 0.5
"""Seconds more for a machine that does other things as well: to end the lease, and to begin the next attempt."""


@pytest.fixture(params=foreign.FORMS[:3], ids=" ".join)
def crew(request, tmp_path):
    crew = Crew(tmp_path, *request.param)
    yield crew
    for worker in crew.workers:
        worker.close()


@pytest.fixture
def crews(tmp_path):
    """One of each language and form, for what takes long because it waits."""
    crews = []
    for form in foreign.FORMS:
        folder = tmp_path / "-".join(form)
        folder.mkdir()
        crews.append(Crew(folder, *form))
    yield crews
    for worker in [worker for crew in crews for worker in crew.workers]:
        worker.close()


@pytest.mark.parametrize("crew", foreign.FORMS, ids=" ".join, indirect=True)
def test_the_job_of_a_killed_worker_runs_elsewhere_within_a_lease_and_a_look(start_server, crew):
    server = start_server("--lease-duration", f"{LEASE}s")
    victim = crew.worker(server.address)
    gate = crew.gate("go")
    steps = [{"output": "one "}, {"wait_for": str(gate), "attempt": 1}, {"output": "two"}, {"result": {}}]
    job = crew.job(server, *steps, options=AT_ONCE)
    victim.tells("waiting", job=job.id)
    crew.worker(server.address)

    killed = time.time()
    victim.signal(signal.SIGKILL)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    freed, again = [message for message in messages if message.HasField("state_change")][2:4]
    assert (freed.state_change.reason, again.state_change.worker_id) == ("LEASE_EXPIRED", "worker-2")
    assert again.event_time.ToNanoseconds() / 1e9 - killed < LEASE + LOOK + ALLOWANCE
    assert (status(server, job).attempt, status(server, job).counted_attempts) == (2, 2)
    assert len(of(messages, "output_reset")) == 1 and rendered(messages) == "one two"


def test_a_job_that_kills_its_worker_fails_in_the_end_and_holds_up_nobody(start_server, crew):
    server = start_server("--lease-duration", "1s", "--accept-timeout", "1s")
    # It has begun for sure before it kills.
    fatal = [{"output": "begun"}, {"sleep": 0.3}, {"crash": True}]
    poison = crew.job(server, *fatal, options={"retryPolicy": {"maximumAttempts": 4}})
    others = [crew.job(server, {"result": {}}, options={"retryPolicy": {"maximumAttempts": 9}}) for _ in range(100)]
    over, numbers = threading.Event(), itertools.count(1)

    def supervise():
        while not over.is_set():
            name = f"supervised-{next(numbers)}"
            worker = foreign.start(crew.folder, crew.language, crew.form, server.address, name, crew.kind, slots=4)
            crew.workers.append(worker)
            while worker.process.poll() is None and not over.wait(0.05):
                pass

    supervisors = [threading.Thread(target=supervise) for _ in range(2)]
    for supervisor in supervisors:
        supervisor.start()
    try:
        ends = [watch(server, job)[-1] for job in others]
        messages = watch(server, poison)
    finally:
        over.set()
        for supervisor in supervisors:
            supervisor.join()

    assert [end.state_change.state for end in ends] == [Job.SUCCEEDED] * 100
    assert states(messages) == ["PENDING", *["RUNNING", "PENDING"] * 3, "RUNNING", "FAILED"]
    assert of(messages, "state_change")[-1].failure.reason == "LEASE_EXPIRED"
    last = [message for message in messages if message.HasField("state_change")][-2]
    late = [end for end in ends if end.event_time.ToNanoseconds() > last.event_time.ToNanoseconds()]
    assert not late, f"{len(late)} jobs ended only when the poisoned one was at its last attempt"


def test_a_server_that_stood_still_for_three_leases_has_lost_none(start_server, crews, tmp_path):
    server = start_server("--lease-duration", f"{LEASE}s")
    gate = tmp_path / "go"
    jobs = []
    for crew in crews:
        worker = crew.worker(server.address, slots=5)
        begun = [crew.job(server, {"output": "begun"}, {"wait_for": str(gate)}, {"result": {}}) for _ in range(5)]
        for job in begun:
            worker.tells("waiting", job=job.id)
        jobs += begun

    os.kill(server.process.pid, signal.SIGSTOP)
    time.sleep(3 * LEASE)
    os.kill(server.process.pid, signal.SIGCONT)
    # Whatever it would do to them, it would do by then.
    time.sleep(LEASE)
    gate.touch()

    for job in jobs:
        assert states(watch(server, job)) == ["PENDING", "RUNNING", "SUCCEEDED"]
        assert status(server, job).counted_attempts == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_fifty_foreign_jobs_outlive_their_server(start_server, crews, tmp_path, end):
    server = start_server("--lease-duration", "4s", "--drain-timeout", "1s")
    proxy = foreign.Proxy(server.address)
    workers = [crew.worker(proxy.address, slots=7) for crew in crews for _ in range(2)]
    gate = tmp_path / "go"
    steps = [{"output": "before, "}, {"wait_for": str(gate)}, {"output": "after"}, {"result": {}}]
    jobs = [crew.job(server, *steps) for crew, _ in zip(itertools.cycle(crews), range(50))]
    foreign.until(lambda: sum(len(worker.told("waiting")) for worker in workers) == 50, "fifty running jobs")

    getattr(server, end)()
    server.start()
    proxy.lead_to(server.address)
    # Longer than a lease: only what was taken up again is still there.
    time.sleep(5)
    gate.touch()

    for job in jobs:
        messages = watch(server, job)
        assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and rendered(messages) == "before, after"
        assert status(server, job).counted_attempts == 1
    proxy.close()
