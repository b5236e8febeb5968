"""buf curl, a gRPC client in Go without grpc-go: with the contract's files, and by reflection v1."""

import json

import pytest
from conftest import PROTO, json_values, run

SCHEMAS = {"files": ["--schema", PROTO], "reflection": ["--reflect-protocol", "grpc-v1"]}


def curl(server, schema, method, body):
    url = f"http://{server.address}/longhaul.v1.JobService/{method}"
    text = run(
        *["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", *SCHEMAS[schema]],
        *["--data", json.dumps(body), url],
    )
    return json_values(text)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_job_is_started_and_watched_to_its_end(server, schema):
    [job] = curl(server, schema, "StartJob", {"kind": "simulate", "input": {"prompt": "a b c", "seconds": 0.3}})
    events = curl(server, schema, "WatchJob", {"jobId": job["id"], "afterSequence": 0})

    [page] = curl(server, schema, "ListJobs", {"filter": {"states": ["SUCCEEDED"]}, "pageSize": 1})

    assert events[0]["snapshot"]["job"]["id"] == job["id"] == page["jobs"][0]["id"]
    assert events[-1]["stateChange"]["state"] == "SUCCEEDED"
    assert events[-1]["stateChange"]["result"]["text"] == "Processed: a b c"
