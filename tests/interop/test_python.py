"""Python's grpcio with stubs generated from the contract: the whole life of jobs, over restarts and failures."""

import concurrent.futures
import datetime
import json

import grpc
import pytest
from client import (
    FINAL, Job, history, kept, refused, rendered, running, simulate, start, states, status, watch,
)
from conftest import WAIT, until
from google.protobuf import empty_pb2, json_format, timestamp_pb2
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


def waiting(team, **options):
    """A request for a job that nobody runs."""
    return job_service_pb2.StartJobRequest(kind="nobody-does-this", labels={"team": team}, options=options)


def listed(server, page_size=3, **filter):
    """Every job that a filter means, page by page."""
    request = job_service_pb2.ListJobsRequest(page_size=page_size, filter=filter)
    while True:
        page = server.jobs.ListJobs(request, timeout=30)
        yield from page.jobs
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def counts(server, *kinds):
    """How many jobs there are by state."""
    answer = server.jobs.CountJobs(job_service_pb2.CountJobsRequest(kinds=kinds), timeout=30)
    assert not answer.truncated
    return {Job.State.Name(count.state): count.jobs for count in answer.counts}


def summarize(server, text, **fields):
    """A summary, once it is written, and its messages."""
    request = job_service_pb2.StartJobRequest(kind="summarize", input_json=json.dumps({"text": text, **fields}))
    job = server.jobs.StartJob(request, timeout=30)
    messages = watch(server, job)
    return status(server, job), messages


def test_a_batch_is_listed_by_its_label_and_counted(start_server):
    server = start_server()
    requests = [simulate(labels={"order": str(n % 2), "batch": "7"}) for n in range(9)]
    jobs = server.jobs.BatchStartJobs(job_service_pb2.BatchStartJobsRequest(requests=requests), timeout=30).jobs
    other = start(server, labels={"order": "1"})
    ids = [job.id for job in jobs]

    assert [job.labels["order"] for job in jobs] == ["0", "1"] * 4 + ["0"], "in the order of the requests"
    assert [job.id for job in listed(server)] == [*ids, other.id][::-1], "newest first"
    assert [job.id for job in listed(server, labels={"batch": "7", "order": "1"})] == ids[1::2][::-1]
    assert [job.id for job in listed(server, create_time_min=other.create_time)] == [other.id]
    assert not list(listed(server, kinds=["summarize"]))
    until(lambda: counts(server) == {"SUCCEEDED": 10}, "the end of all jobs")
    assert len(list(listed(server, states=[Job.SUCCEEDED], kinds=["simulate"]))) == 10
    assert not list(listed(server, states=[Job.RUNNING, Job.PENDING]))
    assert counts(server, "summarize") == {}


def test_a_batch_with_request_ids_can_be_repeated(server):
    requests = [simulate(request_id=f"row {n}") for n in (1, 2, 1)]
    batch = job_service_pb2.BatchStartJobsRequest(requests=requests)

    first = server.jobs.BatchStartJobs(batch, timeout=30).jobs
    again = server.jobs.BatchStartJobs(batch, timeout=30).jobs

    assert [job.id for job in first] == [job.id for job in again]
    assert first[0].id == first[2].id != first[1].id


def test_many_jobs_are_watched_from_what_is_there_to_what_changes(start_server):
    server = start_server()
    before = [server.jobs.StartJob(waiting("a"), timeout=30) for _ in range(3)]
    server.jobs.StartJob(waiting("b"), timeout=30)
    filter = {"labels": {"team": "a"}, "states": [Job.PENDING]}
    request = job_service_pb2.WatchJobsRequest(filter=filter, initial_jobs=2, minimum_interval={"nanos": 10**7})
    changes = server.jobs.WatchJobs(request, timeout=30)

    assert [next(changes).job.id for _ in range(2)] == [before[2].id, before[1].id], "newest first"
    assert next(changes).HasField("synced")

    server.jobs.StartJob(waiting("b"), timeout=30)
    later = server.jobs.StartJob(waiting("a"), timeout=30)
    assert next(changes).job.id == later.id, "the one that does not match is not told of"

    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=later.id), timeout=30)
    departed = next(changes).departed
    assert (departed.id, departed.state) == (later.id, Job.CANCELLED)

    with pytest.raises(grpc.RpcError):
        changes.cancel()
        next(changes)


def test_a_watcher_of_many_is_told_of_a_job_that_is_deleted(start_server):
    server = start_server()
    job = start(server)
    watch(server, job)
    changes = server.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(initial_jobs=10), timeout=30)
    assert [next(changes).WhichOneof("event") for _ in range(2)] == ["job", "synced"]

    server.jobs.DeleteJob(job_service_pb2.DeleteJobRequest(job_id=job.id), timeout=30)

    assert next(changes).forgotten_job_id == job.id
    assert refused(server.jobs.GetStatus, job_service_pb2.GetStatusRequest(job_id=job.id)).code == "NOT_FOUND"
    again = refused(server.jobs.DeleteJob, job_service_pb2.DeleteJobRequest(job_id=job.id))
    assert (again.code, again.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")
    assert not list(listed(server)) and not counts(server)
    changes.cancel()


def test_a_failed_job_is_tried_again_as_a_new_one(server):
    once = {"retryPolicy": {"maximumAttempts": 1}, "priority": 7}
    job = start(server, {"chaos": {"error": 1}}, once, labels={"team": "voice"})
    watch(server, job)
    failed = status(server, job)
    request = job_service_pb2.RetryJobRequest(job_id=job.id, request_id="again")

    retry, call = server.jobs.RetryJob.with_call(request, timeout=30)
    repeated, repeated_call = server.jobs.RetryJob.with_call(request, timeout=30)

    assert retry.id == repeated.id != job.id and retry.retry_of == job.id
    assert "longhaul-repeated" not in dict(call.initial_metadata())
    assert dict(repeated_call.initial_metadata())["longhaul-repeated"] == "true"
    assert (retry.kind, retry.labels, retry.options.priority) == (failed.kind, failed.labels, 7)
    assert states(watch(server, retry))[-1] == "FAILED"
    assert status(server, retry).input == failed.input
    assert status(server, job) == failed, "what has ended stays as it ended"
    other = job_service_pb2.RetryJobRequest(job_id=retry.id, request_id="again")
    refusal = refused(server.jobs.RetryJob, other)
    assert (refusal.reason, refusal.fields) == ("REQUEST_ID_REUSED", ["request_id"])


def test_a_job_that_waits_knows_its_place(start_server):
    server = start_server()
    jobs = [server.jobs.StartJob(waiting("a", priority=priority), timeout=30) for priority in (0, 0, 9)]

    assert [status(server, job).queue_position for job in jobs] == [2, 3, 1]

    changes = server.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=jobs[1].id), timeout=30)
    assert next(changes).snapshot.job.queue_position == 3
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=jobs[2].id), timeout=30)
    assert next(message for message in changes if message.HasField("queue_update")).queue_update.position == 2
    changes.cancel()


GERMAN = (
    "Die Eisenbahn verbindet Städte. Der Zug nach Köln fährt um 8.15 Uhr ab. Dr. Müller nimmt den Zug nach Köln. "
    "Im Zug nach Köln liest Dr. Müller Zeitung. Es regnet."
)
CHINESE = "火车连接城市。去北京的火车早上开。王先生坐火车去北京。王先生在火车上看报纸。下雨了。"


@pytest.mark.parametrize("text, total", [(GERMAN, 5), (CHINESE, 5)], ids=["German", "Chinese"])
def test_a_summary_has_the_wanted_sentences_of_the_text(server, text, total):
    job, messages = summarize(server, text, sentences=2)

    result = json_format.MessageToDict(job.result)
    sentences = result["sentences"]
    assert job.state == Job.SUCCEEDED and len(sentences) == 2
    assert all(sentence["text"] in text for sentence in sentences)
    assert [sentence["index"] for sentence in sentences] == sorted(sentence["index"] for sentence in sentences)
    assert all(0 < sentence["score"] < 1 for sentence in sentences)
    assert result["total_sentences"] == total == job.progress.total == job.progress.completed
    gap = "" if text == CHINESE else " "
    assert result["summary"] == rendered(messages) == gap.join(sentence["text"] for sentence in sentences)


SHORT = {
    "one sentence": ("It rains.", {}, ["It rains."]),
    "fewer than are wanted": ("It rains. It pours.", {"sentences": 100}, ["It rains.", "It pours."]),
    "three where nothing is said": ("One is here. Two is here. Three is here. Four is here.", {}, 3),
    "no punctuation": ("it rains and it pours", {}, ["it rains and it pours"]),
    "lines without punctuation": ("it rains\n\nit pours", {}, ["it rains", "it pours"]),
    "Arabic": ("هل تمطر؟ نعم تمطر.", {}, ["هل تمطر؟", "نعم تمطر."]),
    "NUL and emoji": ("a\0b 👩‍👩‍👧 c. Done.", {}, ["a\0b 👩‍👩‍👧 c.", "Done."]),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_text_is_its_own_summary(server, name):
    text, fields, expected = SHORT[name]

    job, _ = summarize(server, text, **fields)

    sentences = [sentence["text"] for sentence in json_format.MessageToDict(job.result)["sentences"]]
    assert expected in (sentences, len(sentences))


NOTHING_TO_SUMMARIZE = {
    "no text": ({}, "text"),
    "an empty text": ({"text": ""}, "text"),
    "white space": ({"text": " \n\t\u2003"}, "text"),
    "no words": ({"text": "... !!! ---"}, "text"),
    "a text that is none": ({"text": 1}, "text"),
    "no sentence": ({"text": "It rains.", "sentences": 0}, "sentences"),
    "less than none": ({"text": "It rains.", "sentences": -1}, "sentences"),
    "too many": ({"text": "It rains.", "sentences": 101}, "sentences"),
    "half a sentence": ({"text": "It rains.", "sentences": 1.5}, "sentences"),
    "sentences as text": ({"text": "It rains.", "sentences": "3"}, "sentences"),
    "a slip": ({"text": "It rains.", "sentence": 3}, "sentence"),
}


@pytest.mark.parametrize("name", NOTHING_TO_SUMMARIZE)
def test_a_bad_input_of_a_summary_fails_at_once_and_says_what_is_wrong(server, name):
    input, named = NOTHING_TO_SUMMARIZE[name]

    job = server.jobs.StartJob(
        job_service_pb2.StartJobRequest(kind="summarize", input_json=json.dumps(input)), timeout=30
    )

    assert states(watch(server, job)) == ["PENDING", "RUNNING", "FAILED"], "it cannot help to try again"
    failure = status(server, job).failure
    assert failure.permanent and failure.reason == "INVALID_INPUT" and named in failure.message, failure


def test_a_text_of_a_mebibyte_is_summarized_while_others_are_served(server):
    words = [f"word{n * n % 997}" for n in range(2_000)]
    text = " ".join(" ".join(words[n % 1_900 : n % 1_900 + 12]).capitalize() + "." for n in range(10_000))[: 2**20 - 40]

    job, messages = summarize(server, text, sentences=5)

    assert job.state == Job.SUCCEEDED and len(rendered(messages)) > 0
    fractions = [message.progress.fraction for message in messages if message.HasField("progress")]
    assert len(fractions) > 2 and fractions == sorted(fractions)
    assert job.run_duration.ToTimedelta().total_seconds() < 20


def test_a_method_of_no_service_is_unimplemented(server):
    call = server.channel.unary_unary(
        "/longhaul.v1.JobService/Dance",
        request_serializer=empty_pb2.Empty.SerializeToString,
        response_deserializer=empty_pb2.Empty.FromString,
    )

    assert refused(call, empty_pb2.Empty()).code == "UNIMPLEMENTED"
