"""Workers whose gRPC nobody here wrote: one scenario, in Python and in Node, by streams and by unary methods.

What a worker does with a job is said in the job's input: see workers/worker.py.
"""

import datetime
import itertools
import signal
import time

import foreign
import pytest
from client import Job, history, kept, rendered, states, status, watch
from conftest import Server, until
from google.protobuf import json_format
from longhaul.v1 import job_service_pb2

AT_ONCE = {"retryPolicy": {"initialInterval": "0.05s"}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NUMBERS = itertools.count(1)
STREAMS = [(language, form) for language, form in foreign.FORMS if form == "work"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose workers send a heartbeat every two seconds."""
    server = Server(tmp_path_factory.mktemp("server"), "--lease-duration", "6s")
    yield server
    server.stop()


@pytest.fixture(params=foreign.FORMS, ids=" ".join)
def crew(request, tmp_path):
    """Workers of one language and form, which serve a kind that nobody else serves."""
    crew = Crew(tmp_path, *request.param)
    yield crew
    for worker in crew.workers:
        worker.close()


class Crew:
    def __init__(self, folder, language, form):
        self.folder, self.language, self.form = folder, language, form
        self.kind = f"foreign-{next(NUMBERS)}"
        self.workers = []

    def worker(self, address, slots=2, **more):
        """Starts one that is called `worker-1`, `worker-2`, …, and waits until it serves."""
        name = f"worker-{len(self.workers) + 1}"
        worker = foreign.start(self.folder, self.language, self.form, address, name, self.kind, slots, **more)
        self.workers.append(worker)
        worker.tells("welcome")
        return worker

    def job(self, server, *steps, stubborn=False, metadata=(), **fields):
        body = {"kind": self.kind, "input": {"steps": steps, "stubborn": stubborn}, **fields}
        request = json_format.ParseDict(body, job_service_pb2.StartJobRequest())
        return server.jobs.StartJob(request, timeout=30, metadata=metadata)

    def gate(self, name):
        """A file that a step waits for; `touch` lets the step go on."""
        return self.folder / name


def of(messages, field):
    """The events of one sort."""
    return [getattr(message, field) for message in messages if message.HasField(field)]


def test_a_job_runs_with_all_that_it_tells(server, crew):
    worker = crew.worker(server.address)
    gates = [crew.gate("first"), crew.gate("second")]

    job = crew.job(
        server,
        {"progress": 0.25, "stage": "Reading"},
        {"wait_for": str(gates[0])},
        {"output": "to be – "},
        {"output": "Hm. ", "channel": "reasoning"},
        {"log": "half of it"},
        {"metrics": {"tokens": 3}},
        {"progress": 0.75, "stage": "Writing"},
        {"wait_for": str(gates[1])},
        {"output": "or not "},
        {"output": "Aha!", "channel": "reasoning"},
        {"metrics": {"tokens": 5, "seconds": 0.5}},
        {"output": "to be"},
        {"log": "all of it"},
        {"result": {"text": "naïve", "count": 3}},
        options={"startToCloseTimeout": "60s"},
        metadata=[("traceparent", TRACE), ("tracestate", "vendor=here")],
    )
    for gate, (fraction, stage) in zip(gates, [(0.25, "Reading"), (0.75, "Writing")]):
        shown = until(lambda: (now := status(server, job).progress).stage == stage and now, f"progress in {stage}")
        assert shown.fraction == fraction
        gate.touch()
    messages = watch(server, job)
    after = status(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert kept(messages) == history(server, job)
    assert rendered(messages) == "to be – or not to be"
    assert rendered(messages, channel="reasoning") == "Hm. Aha!"
    assert [log.message for log in of(messages, "log")] == ["half of it", "all of it"]
    assert [stage.name for stage in of(messages, "stage")] == ["Reading", "Writing"]
    assert json_format.MessageToDict(after.result) == {"text": "naïve", "count": 3}
    assert dict(after.metrics) == {"tokens": 5, "seconds": 0.5}
    assert (after.attempt, after.counted_attempts, after.progress.fraction) == (1, 1, 1)
    assert of(messages, "state_change")[1].worker_id == "worker-1"
    assigned = worker.tells("assigned", job=job.id)
    assert assigned["traceparent"] == TRACE and assigned["tracestate"] == "vendor=here" and assigned["has_deadline"]
    assert worker.tells("reported", job=job.id)["what"] == "complete"


def test_an_attempt_that_failed_leaves_nothing_of_its_output(server, crew):
    crew.worker(server.address)

    job = crew.job(
        server,
        {"output": "garbled and long", "attempt": 1},
        {"output": "noise", "channel": "reasoning", "attempt": 1},
        {"fail": "FLAKY", "attempt": 1},
        {"output": "clear"},
        {"result": {}},
        options=AT_ONCE,
    )
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "RETRYING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert of(messages, "state_change")[2].failure.reason == "FLAKY"
    assert {(reset.channel, reset.kept_bytes) for reset in of(messages, "output_reset")} == {("", 0), ("reasoning", 0)}
    assert {message.attempt for message in messages if message.HasField("output_reset")} == {2}
    assert rendered(messages) == "clear" and rendered(messages, channel="reasoning") == ""
    assert (status(server, job).attempt, status(server, job).counted_attempts) == (2, 2)


def test_a_permanent_failure_is_the_end(server, crew):
    worker = crew.worker(server.address)

    job = crew.job(server, {"fail": "NO_USE", "permanent": True}, options=AT_ONCE)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "FAILED"]
    failure = status(server, job).failure
    assert (failure.reason, failure.message, failure.permanent) == ("NO_USE", "as it was told", True)
    assert worker.tells("reported", job=job.id)["state"] == "FAILED"


def test_a_job_given_back_runs_again_later_and_has_lost_no_attempt(server, crew):
    crew.worker(server.address)

    once = {"retryPolicy": {"maximumAttempts": 1}}
    job = crew.job(
        server,
        {"output": "half", "attempt": 1},
        {"release": 0.5, "attempt": 1},
        {"output": "whole"},
        {"result": {}},
        options=once,
    )
    messages = watch(server, job)

    steps = [message for message in messages if message.HasField("state_change")]
    released = next(step for step in steps if step.state_change.state == Job.SCHEDULED)
    again = next(step for step in steps if step.attempt == 2)
    assert "AS_IT_WAS_TOLD" in (released.state_change.reason, released.state_change.message)
    assert again.event_time.ToDatetime() - released.event_time.ToDatetime() >= datetime.timedelta(seconds=0.5)
    assert rendered(messages) == "whole" and states(messages)[-1] == "SUCCEEDED"
    assert (status(server, job).attempt, status(server, job).counted_attempts) == (2, 1)


def test_a_cancel_is_told_and_the_job_ends_as_soon_as_its_worker_has_stopped(server, crew):
    worker = crew.worker(server.address)
    job = crew.job(server, {"output": "some"}, {"wait_for_cancel": True})
    worker.tells("waiting", job=job.id)

    asked = time.monotonic()
    request = job_service_pb2.CancelJobRequest(job_id=job.id, grace_period={"seconds": 60})
    answer = server.jobs.CancelJob(request, timeout=30)
    messages = watch(server, job)
    took = time.monotonic() - asked

    assert answer.state == Job.CANCELLING
    assert 0 < worker.tells("cancel", job=job.id)["grace"] <= 60
    assert states(messages) == ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]
    assert of(messages, "state_change")[-1].reason == "WORKER_STOPPED"
    assert worker.tells("reported", job=job.id, what="fail")["state"] == "CANCELLED"
    assert took < 20, "it was the grace period that ended the job"


def test_a_completion_after_a_cancel_is_refused(server, crew):
    worker = crew.worker(server.address)
    gate = crew.gate("go")
    # Output that is durable shows that the attempt has begun.
    steps = [{"output": "some"}, {"wait_for": str(gate)}, {"result": {"too": "late"}}]
    job = crew.job(server, *steps, stubborn=True)
    worker.tells("waiting", job=job.id)

    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=30)
    gate.touch()
    messages = watch(server, job)

    assert worker.tells("refused", job=job.id, what="complete")["reason"] == "JOB_CANCELLED"
    assert states(messages) == ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]
    assert of(messages, "state_change")[-1].reason == "WORKER_STOPPED"


def test_a_worker_that_stops_after_the_grace_period_is_told_that_its_job_was_cancelled(server, crew):
    worker = crew.worker(server.address)
    gate = crew.gate("go")
    job = crew.job(server, {"output": "some"}, {"wait_for": str(gate)}, {"fail": "TOO_LATE"}, stubborn=True)
    worker.tells("waiting", job=job.id)

    request = job_service_pb2.CancelJobRequest(job_id=job.id, grace_period={"nanos": 200_000_000})
    server.jobs.CancelJob(request, timeout=30)
    messages = watch(server, job)
    gate.touch()

    assert worker.tells("reported", job=job.id, what="fail")["state"] == "CANCELLED"
    assert states(messages) == ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]
    assert of(messages, "state_change")[-1].reason != "WORKER_STOPPED", "it was the worker that ended the job"
    assert kept(messages) == history(server, job), "the late report has changed something"
    assert status(server, job).failure.reason != "TOO_LATE"


@pytest.mark.parametrize("step", [{"result": {}}, {"fail": "FLAKY"}, {"release": 0}], ids=lambda step: list(step)[0])
def test_a_report_that_is_repeated_has_the_same_answer(server, crew, step):
    worker = crew.worker(server.address)
    job = crew.job(server, {**step, "twice": True, "attempt": 1}, {"result": {}}, options=AT_ONCE)

    first, second = worker.tells("reported", job=job.id), worker.tells("repeated", job=job.id)
    messages = watch(server, job)

    assert second["reason"] == "" and first.get("state") == second.get("state")
    assert states(messages)[-1] == "SUCCEEDED"
    assert (status(server, job).attempt, states(messages).count("RUNNING")) == 2 * (1 if "result" in step else 2,)


@pytest.mark.parametrize("crew", STREAMS, ids=" ".join, indirect=True)
def test_a_success_waits_for_output_that_is_late(server, crew):
    """Without streams nothing can overtake."""
    proxy = foreign.Proxy(server.address)
    worker = crew.worker(server.address, **{"emit-server": proxy.address})
    gate = crew.gate("go")
    job = crew.job(server, {"output": "early, "}, {"wait_for": str(gate)}, {"output": "late"}, {"result": {}})
    worker.tells("waiting", job=job.id)

    proxy.hold()
    gate.touch()
    missing = worker.tells("refused", job=job.id, what="complete")
    before = status(server, job).state
    proxy.flow()
    messages = watch(server, job)

    assert missing["reason"] == "OUTPUT_MISSING" and before == Job.RUNNING
    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == "early, late"
    proxy.close()


def test_a_worker_that_drains_finishes_what_it_has_and_takes_no_more(server, crew):
    worker = crew.worker(server.address, slots=2)
    first, second = crew.gate("first"), crew.gate("second")
    steps = [{"wait_for": str(first)}, {"progress": 0.5, "stage": "After"}, {"wait_for": str(second)}, {"result": {}}]
    job = crew.job(server, *steps)
    worker.tells("waiting", job=job.id)

    worker.signal(signal.SIGTERM)
    worker.tells("draining")
    first.touch()
    # What was said before this stage has arrived as well: the drain.
    until(lambda: of(history(server, job), "stage"), "a report after the drain")
    later = crew.job(server, {"result": {}})
    second.touch()

    assert worker.ends() == 0
    assert worker.told("drained") and not worker.told("assigned", job=later.id)
    assert states(watch(server, job)) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert (status(server, later).state, status(server, later).attempt) == (Job.PENDING, 0)


def test_a_lost_connection_loses_neither_lease_nor_output(start_server, crew):
    server = start_server()
    proxy = foreign.Proxy(server.address)
    worker = crew.worker(proxy.address)
    first, second = crew.gate("first"), crew.gate("second")
    job = crew.job(
        server,
        {"output": "before, "},
        {"wait_for": str(first)},
        {"output": "meanwhile, "},
        {"log": "nobody hears me"},
        {"wait_for": str(second)},
        {"output": "after"},
        {"result": {}},
    )
    worker.tells("waiting", job=job.id)

    proxy.cut()
    worker.tells("broken")
    first.touch()
    until(lambda: len(worker.told("broken")) > 4, "a try while the connection was cut")
    proxy.mend()
    second.touch()
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == "before, meanwhile, after"
    assert [log.message for log in of(messages, "log")] == ["nobody hears me"]
    assert (status(server, job).attempt, status(server, job).counted_attempts) == (1, 1)
    if crew.form == "work":
        assert {job.id: "RENEWED"} in [welcome["kept"] for welcome in worker.told("welcome")]
    proxy.close()


def test_a_connection_that_leads_nowhere_is_left_for_another(start_server, crew):
    server = start_server("--lease-duration", "12s", "--heartbeat-interval", "0.5s", "--accept-timeout", "1s")
    proxy = foreign.Proxy(server.address)
    worker = crew.worker(proxy.address)
    gate = crew.gate("go")
    job = crew.job(server, {"output": "before, "}, {"wait_for": str(gate)}, {"output": "after"}, {"result": {}})
    worker.tells("waiting", job=job.id)

    proxy.swallow()
    gate.touch()
    later = crew.job(server, {"result": {}})
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and rendered(messages) == "before, after"
    assert states(watch(server, later)) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert status(server, job).attempt == status(server, later).attempt == 1
    proxy.close()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_restart_of_the_server_ends_no_attempt(start_server, crew, end):
    server = start_server("--drain-timeout", "1s")
    proxy = foreign.Proxy(server.address)
    worker = crew.worker(proxy.address, slots=3)
    gate = crew.gate("go")
    steps = [{"output": "before, "}, {"wait_for": str(gate)}, {"output": "after"}, {"result": {}}]
    jobs = [crew.job(server, *steps) for _ in range(3)]
    for job in jobs:
        worker.tells("waiting", job=job.id)

    getattr(server, end)()
    server.start()
    proxy.lead_to(server.address)
    gate.touch()

    for job in jobs:
        messages = watch(server, job)
        assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and rendered(messages) == "before, after"
        assert (status(server, job).attempt, status(server, job).counted_attempts) == (1, 1)
    if (crew.language, crew.form, end) == ("python", "work", "stop"):
        # grpc-js forgets what was not read yet when a stream ends with an error.
        assert worker.told("go_away")
    proxy.close()


def test_a_worker_that_fell_silent_can_record_nothing_more(start_server, crew):
    server = start_server("--lease-duration", "2s")
    zombie = crew.worker(server.address)
    first, second = crew.gate("first"), crew.gate("second")
    job = crew.job(
        server,
        {"output": "early ", "attempt": 1},
        {"wait_for": str(first), "attempt": 1},
        {"progress": 0.9, "stage": "ZOMBIE", "attempt": 1},
        {"output": "ZOMBIE", "attempt": 1},
        {"log": "ZOMBIE", "attempt": 1},
        {"metrics": {"ZOMBIE": 1}, "attempt": 1},
        {"result": {"by": "ZOMBIE"}, "attempt": 1},
        {"output": "late"},
        {"wait_for": str(second)},
        {"result": {"by": "its successor"}},
        stubborn=True,
        options=AT_ONCE,
    )
    zombie.tells("waiting", job=job.id)

    zombie.signal(signal.SIGSTOP)
    successor = crew.worker(server.address)
    successor.tells("waiting", job=job.id)
    before = history(server, job)
    first.touch()
    zombie.signal(signal.SIGCONT)
    refusals = [zombie.tells("refused", job=job.id, what=what) for what in ("append", "complete")]
    zombie.tells("lease_lost", job=job.id)
    between = history(server, job)
    second.touch()
    messages = watch(server, job)

    assert {refusal["reason"] for refusal in refusals} == {"LEASE_LOST"} and not zombie.told("reported", job=job.id)
    assert before == between, "something was recorded for a worker without a lease"
    after = status(server, job)
    assert "ZOMBIE" not in "".join(map(str, [*messages, after.result, after.metrics, after.progress]))
    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert of(messages, "state_change")[2].reason == "LEASE_EXPIRED"
    assert rendered(messages) == "late"
    assert successor.tells("assigned", job=job.id)["attempt"] == 2


def test_a_lease_without_heartbeats_ends_and_its_worker_is_told(start_server, crew):
    server = start_server("--lease-duration", "2s")
    worker = crew.worker(server.address)
    steps = [{"silent": True, "attempt": 1}, {"sleep": 60, "attempt": 1}, {"result": {}}]
    job = crew.job(server, *steps)

    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert [told["attempt"] for told in worker.told("assigned", job=job.id)] == [1, 2]
    if crew.form == "work":
        # Nobody else could tell it: a unary worker learns of it when it next reports.
        worker.tells("lease_lost", job=job.id)


def test_a_job_whose_worker_died_runs_elsewhere(start_server, crew):
    server = start_server("--lease-duration", "2s")
    victim = crew.worker(server.address)
    steps = [{"output": "mine"}, {"crash": True, "attempt": 1}, {"output": " alone"}, {"result": {}}]
    job = crew.job(server, *steps, options=AT_ONCE)
    victim.tells("crash", job=job.id)

    crew.worker(server.address)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert of(messages, "state_change")[2].reason == "LEASE_EXPIRED"
    assert rendered(messages) == "mine alone" and len(of(messages, "output_reset")) == 1
    assert (status(server, job).attempt, status(server, job).counted_attempts) == (2, 2)
