"""grpcurl, which knows of this server only what the server says about itself by reflection.

This version of grpcurl asks for reflection v1alpha; test_buf_curl.py asks for v1.
"""

import json

from conftest import json_values, run

SERVICE = "longhaul.v1.JobService"


def grpcurl(server, *arguments, body=None, **options):
    data = [] if body is None else ["-d", json.dumps(body)]
    return run("grpcurl", "-plaintext", "-max-time", "20", *data, server.address, *arguments, **options)


def call(server, method, body):
    [answer] = json_values(grpcurl(server, f"{SERVICE}/{method}", body=body))
    return answer


def watch(server, **request):
    return json_values(grpcurl(server, f"{SERVICE}/WatchJob", body=request))


def test_it_lists_every_service(server):
    services = grpcurl(server, "list").split()

    assert services == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
        "longhaul.v1.WorkerService",
    ]


def test_it_describes_methods_with_their_comments(server):
    text = grpcurl(server, "describe", SERVICE)

    assert "rpc WatchJob ( .longhaul.v1.WatchJobRequest ) returns ( stream .longhaul.v1.JobEvent );" in text
    assert "Follows a job to its end." in text
    assert "optional int64 after_sequence = 2;" in grpcurl(server, "describe", "longhaul.v1.WatchJobRequest")


def test_a_job_is_started_and_watched_to_its_end(server):
    body = {"kind": "simulate", "input": {"prompt": "Hello, world", "seconds": 0.3}, "labels": {"team": "voice"}}

    job = call(server, "StartJob", body)
    events = watch(server, job_id=job["id"], after_sequence=0)

    assert job["state"] == "PENDING" and job["labels"] == {"team": "voice"} and job["tenant"] == "default"
    assert "job" in events[0]["snapshot"]
    assert events[-1]["stateChange"]["state"] == "SUCCEEDED"
    result = call(server, "GetStatus", {"job_id": job["id"]})
    assert result["state"] == "SUCCEEDED" and result["progress"]["fraction"] == 1
    assert result["result"] == {"text": "Processed: Hello, world", "seconds": 0.3}
    assert result["input"] == body["input"]


def test_a_batch_is_listed_counted_tried_again_and_forgotten(server):
    voice = {"kind": "summarize", "input": {"text": "It rains. It pours."}, "labels": {"team": "by-hand"}}
    jobs = call(server, "BatchStartJobs", {"requests": [voice, {**voice, "input": {}}]})["jobs"]
    for job in jobs:
        watch(server, job_id=job["id"])
    filter = {"labels": {"team": "by-hand"}}

    page = call(server, "ListJobs", {"filter": filter, "page_size": 1})
    rest = call(server, "ListJobs", {"filter": filter, "page_size": 1, "page_token": page["nextPageToken"]})
    failed = call(server, "ListJobs", {"filter": {"states": ["FAILED"], "kinds": ["summarize"]}, "view": "FULL"})
    counts = call(server, "CountJobs", {"kinds": ["summarize"]})
    again = call(server, "RetryJob", {"job_id": failed["jobs"][0]["id"], "request_id": "again"})
    deleted = call(server, "DeleteJob", {"job_id": jobs[0]["id"]})

    assert [page["jobs"][0]["id"], rest["jobs"][0]["id"]] == [jobs[1]["id"], jobs[0]["id"]]
    assert "nextPageToken" not in rest
    assert failed["jobs"][0]["failure"]["reason"] == "INVALID_INPUT"
    assert counts["counts"] == [
        {"kind": "summarize", "state": "SUCCEEDED", "jobs": "1"},
        {"kind": "summarize", "state": "FAILED", "jobs": "1"},
    ]
    assert (again["retryOf"], again["requestId"]) == (jobs[1]["id"], "again")
    assert deleted == {}
    text = grpcurl(server, f"{SERVICE}/GetStatus", body={"job_id": jobs[0]["id"]}, succeeds=False)
    assert "Code: NotFound" in text


def test_many_jobs_are_watched_until_the_reader_has_seen_enough(server):
    job = call(server, "StartJob", {"kind": "nobody-does-this"})

    request = {"filter": {"kinds": ["nobody-does-this"]}, "initial_jobs": 10}
    text = run(
        *["grpcurl", "-plaintext", "-max-time", "1", "-d", json.dumps(request), server.address],
        *[f"{SERVICE}/WatchJobs"],
        succeeds=False,
    )

    first, synced = json_values(text.partition("ERROR:")[0])[:2]
    assert first["job"]["id"] == job["id"] and synced == {"synced": {}}
    assert "Code: DeadlineExceeded" in text


def test_a_running_job_is_cancelled(server):
    job = call(server, "StartJob", {"kind": "simulate", "input": {"seconds": 60}})

    answer = call(server, "CancelJob", {"job_id": job["id"], "reason": "changed my mind"})
    events = watch(server, job_id=job["id"], after_sequence=0)

    assert answer["state"] in ("CANCELLING", "CANCELLED")
    assert events[-1]["stateChange"]["state"] == "CANCELLED" or events[0]["snapshot"]["job"]["state"] == "CANCELLED"
    assert "changed my mind" in [event.get("stateChange", {}).get("message") for event in events]


def test_it_can_read_the_details_of_an_error(server):
    text = grpcurl(server, f"{SERVICE}/StartJob", body={"kind": "No!"}, succeeds=False)

    assert "Code: InvalidArgument" in text
    assert '"field":"kind"' in text.replace(" ", "")
    assert '"domain":"longhaul"' in text.replace(" ", "")


def test_the_server_is_healthy(server):
    [answer] = json_values(grpcurl(server, "grpc.health.v1.Health/Check", body={"service": SERVICE}))

    assert answer == {"status": "SERVING"}
