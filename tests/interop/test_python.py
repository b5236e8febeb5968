"""Python's grpcio with stubs generated from the contract: the whole life of jobs, over restarts and failures."""

import concurrent.futures
import datetime

import grpc
import pytest
from client import (
    FINAL, Job, history, kept, refused, rendered, running, simulate, start, states, status, watch,
)
from conftest import WAIT, until
from google.protobuf import empty_pb2, timestamp_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from longhaul.v1 import job_service_pb2, job_service_pb2_grpc

PROMPT = "to be or not to be, that is the question – whether 'tis nobler"
NO_WAIT = {"retryPolicy": {"initialInterval": "0.05s"}}


def test_what_was_watched_is_the_history(server):
    job = start(server, {"prompt": PROMPT, "seconds": 0.5})

    messages = watch(server, job)

    assert messages[0].HasField("snapshot")
    assert [event.sequence for event in kept(messages)] == list(range(1, len(kept(messages)) + 1))
    assert kept(messages) == history(server, job)
    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == PROMPT
    assert status(server, job).result.struct_value["text"] == f"Processed: {PROMPT}"


def test_a_watch_resumes_after_any_message(server):
    job = start(server, {"prompt": PROMPT})
    messages = watch(server, job)
    whole = kept(messages)

    for message in messages:
        rest = kept(watch(server, job, after=message.sequence))

        assert rest == whole[message.sequence:], f"after {message.sequence}"


def test_a_watch_goes_on_where_a_broken_one_ended(server):
    job = start(server, {"prompt": PROMPT, "seconds": 1})
    request = job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=0)
    broken, first = server.jobs.WatchJob(request, timeout=30), []
    for message in broken:
        first.append(message)
        if rendered(first):
            broken.cancel()
            break

    second = watch(server, job, after=first[-1].sequence)

    assert kept(first) + kept(second) == history(server, job)
    assert rendered(first + second) == PROMPT


def test_a_cancelled_job_cannot_succeed(server):
    job = start(server, {"seconds": 60})
    running(server, job)

    answer = server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id, reason="no need"), timeout=30)
    messages = watch(server, job)
    again = server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=30)

    assert answer.state in (Job.CANCELLING, Job.CANCELLED)
    assert states(messages)[-1] == "CANCELLED" == Job.State.Name(again.state)
    assert again.sequence == messages[-1].sequence, "cancelling twice changes nothing"


def test_a_request_id_names_one_request(server):
    request = simulate({"prompt": "once"}, request_id="order-1")
    _, first_call = server.jobs.StartJob.with_call(request, timeout=30)
    job, call = server.jobs.StartJob.with_call(request, timeout=30)
    assert "longhaul-repeated" not in dict(first_call.initial_metadata())
    assert dict(call.initial_metadata())["longhaul-repeated"] == "true"
    assert job.id == status(server, job).id

    refusal = refused(server.jobs.StartJob, simulate({"prompt": "twice"}, request_id="order-1"))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert refusal.fields == ["request_id"]


def test_concurrent_callers_with_one_request_id_get_one_ticket(server):
    request = simulate(request_id="crowd")
    with concurrent.futures.ThreadPoolExecutor(32) as crowd:
        calls = [crowd.submit(server.jobs.StartJob, request, timeout=30) for _ in range(64)]

    assert len({call.result().id for call in calls}) == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_job_and_its_watch_go_on_after_a_restart(start_server, end):
    server = start_server("--drain-timeout", "0s")
    job = start(server, {"prompt": PROMPT, "seconds": 1.5}, request_id="over a restart")
    request = job_service_pb2.WatchJobRequest(job_id=job.id, after_sequence=0)
    stream, first = server.jobs.WatchJob(request, timeout=30), []
    for message in stream:
        first.append(message)
        if rendered(first):
            break
    stream.cancel()

    getattr(server, end)()
    server.start()
    repeated = start(server, {"prompt": PROMPT, "seconds": 1.5}, request_id="over a restart")
    second = watch(server, job, after=first[-1].sequence)

    assert repeated.id == job.id
    assert kept(first) + kept(second) == history(server, job)
    assert states(second)[-1] == "SUCCEEDED"
    assert rendered(first + second) == PROMPT
    reasons = [message.state_change.reason for message in kept(second)]
    assert "SERVER_RESTART" in reasons
    after = status(server, job)
    assert (after.attempt, after.counted_attempts) == (2, 1)


def test_a_watch_that_the_server_ends_is_unavailable(start_server):
    server = start_server("--drain-timeout", "0s")
    job = start(server, {"seconds": 60})
    stream = server.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), timeout=30)
    next(stream)
    server.process.terminate()

    with pytest.raises(grpc.RpcError) as raised:
        list(stream)

    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(WAIT) == 0


def test_the_server_says_that_it_is_healthy(server):
    health = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", "longhaul.v1.JobService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_compressed_call_gets_a_compressed_answer(server, wiretap):
    prompt = "again " * 10_000
    address, carried = wiretap(server.address)
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        job = jobs.StartJob(simulate({"prompt": prompt}), timeout=30)
        whole = jobs.GetStatus(job_service_pb2.GetStatusRequest(job_id=job.id), timeout=30)

    assert whole.input["prompt"] == prompt
    for direction, size in carried.items():
        assert size < len(prompt) / 4, f"{size} bytes {direction}"


def test_a_job_that_always_fails_is_failed_after_its_attempts(server):
    job = start(server, {"chaos": {"error": 1}}, NO_WAIT)

    messages = watch(server, job)

    assert states(messages).count("RUNNING") == 3
    assert states(messages)[-1] == "FAILED"
    last = status(server, job)
    assert (last.failure.reason, last.attempt, last.counted_attempts) == ("HANDLER_ERROR", 3, 3)


def test_a_job_that_fails_twice_succeeds_and_its_output_is_not_garbled(server):
    job = start(server, {"prompt": PROMPT, "seed": 1, "chaos": {"error": 0.5}}, NO_WAIT)

    messages = watch(server, job)

    assert [state for state in states(messages) if state != "PENDING"] == [
        "RUNNING", "RETRYING", "RUNNING", "RETRYING", "RUNNING", "SUCCEEDED",
    ]
    assert any(message.HasField("output_reset") for message in messages), "an attempt that failed left output"
    assert rendered(messages) == PROMPT
    assert status(server, job).attempt == 3


def test_a_panic_ends_its_job_only(start_server):
    server = start_server()
    job = start(server, {"chaos": {"panic": 1}}, {"retryPolicy": {"maximumAttempts": 1}})

    watch(server, job)

    assert status(server, job).failure.reason == "PANIC"
    assert states(watch(server, start(server)))[-1] == "SUCCEEDED"
    server.kill()


def test_a_silent_attempt_is_ended(server):
    options = {"progressTimeout": "0.5s", "retryPolicy": {"maximumAttempts": 1}}
    job = start(server, {"chaos": {"hang": 1}}, options)

    assert states(watch(server, job))[-1] == "FAILED"
    assert status(server, job).failure.reason == "STALLED"


def test_a_job_that_nobody_starts_in_time_expires(server):
    request = job_service_pb2.StartJobRequest(kind="nobody-does-this")
    request.options.schedule_to_start_timeout.FromMilliseconds(200)
    job = server.jobs.StartJob(request, timeout=30)

    assert states(watch(server, job)) == ["PENDING", "EXPIRED"]


def test_an_attempt_has_its_limit(server):
    options = {"startToCloseTimeout": "0.3s", "retryPolicy": {"maximumAttempts": 1}}
    job = start(server, {"seconds": 60}, options)

    assert states(watch(server, job))[-1] == "FAILED"
    assert status(server, job).failure.reason == "ATTEMPT_TIMEOUT"


def test_a_job_starts_when_it_is_due_and_not_before(server):
    due = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
    request = simulate()
    request.options.schedule_time.FromDatetime(due)
    job = server.jobs.StartJob(request, timeout=30)

    messages = watch(server, job)

    assert job.state == Job.SCHEDULED
    assert states(messages) == ["SCHEDULED", "PENDING", "RUNNING", "SUCCEEDED"]
    [ready, began] = [m.event_time for m in messages if m.HasField("state_change")][1:3]
    expected = timestamp_pb2.Timestamp()
    expected.FromDatetime(due)
    for time in (ready, began):
        assert time.ToNanoseconds() // 1000 >= expected.ToNanoseconds() // 1000


def test_every_job_is_on_one_page_of_the_list(start_server):
    server = start_server()
    started = [start(server).id for _ in range(7)]

    listed, request = [], job_service_pb2.ListJobsRequest(page_size=3)
    while True:
        page = server.jobs.ListJobs(request, timeout=30)
        listed += [job.id for job in page.jobs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert listed == started[::-1]
    until(lambda: all(status(server, Job(id=id)).state in FINAL for id in started), "the end of all jobs")


def not_there_yet():
    """The methods of the contract that this version does not have, with a request that would be good."""
    retry, delete = job_service_pb2.RetryJobRequest, job_service_pb2.DeleteJobRequest
    filter = job_service_pb2.JobFilter(kinds=["simulate"])
    return {
        "BatchStartJobs": job_service_pb2.BatchStartJobsRequest(requests=[simulate()]),
        "WatchJobs": job_service_pb2.WatchJobsRequest(),
        "RetryJob": retry(job_id="0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11"),
        "DeleteJob": delete(job_id="0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11"),
        "ListJobs": job_service_pb2.ListJobsRequest(filter=filter),
    }


@pytest.mark.parametrize("method", not_there_yet())
def test_what_is_not_there_yet_says_so(server, method):
    refusal = refused(getattr(server.jobs, method), not_there_yet()[method])

    assert refusal.code == "UNIMPLEMENTED"
    assert refusal.reason in ("NOT_IMPLEMENTED", "METHOD_UNKNOWN")


def test_a_method_of_no_service_is_unimplemented(server):
    call = server.channel.unary_unary(
        "/longhaul.v1.JobService/Dance",
        request_serializer=empty_pb2.Empty.SerializeToString,
        response_deserializer=empty_pb2.Empty.FromString,
    )

    assert refused(call, empty_pb2.Empty()).code == "UNIMPLEMENTED"
