"""An EventSource that nobody here wrote reads a watch over kills of the server, and knows when it has seen all."""

import pathlib

import foreign
import pytest
from client import history, simulate
from conftest import WAIT, until
from google.protobuf import json_format
from http_jobs import NAMES
from longhaul.v1 import job_pb2, job_service_pb2

FOLDER = pathlib.Path(__file__).parent / "eventsource"
KEPT = {NAMES[field] for field in ("state_change", "output", "output_reset", "log", "stage")}
KILLS = 3
BETWEEN = 25
"""Kept events that a reader has seen at least before the server is killed again."""


@pytest.fixture
def reader(tmp_path):
    """Starts readers of an address: `reader(server, "/v1/…")`."""
    foreign.need_node(FOLDER)
    readers = []

    def begin(server, target):
        command = ["node", FOLDER / "reader.mjs", f"http://{server.address}{target}", *NAMES.values(), "problem"]
        readers.append(foreign.Worker(command, tmp_path / f"reader-{len(readers)}.log"))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.close()


def kept(reader):
    return [told for told in reader.told("message") if told["type"] in KEPT]


def test_every_kept_event_is_seen_once_over_three_kills_of_the_server(start_server, reader):
    server = start_server()
    # It comes back where it was, as a server does.
    server.listen = server.address
    words = " ".join(f"word-{n}" for n in range(400))
    options = {"retryPolicy": {"maximumAttempts": 10}}
    job = server.jobs.StartJob(simulate({"seconds": 8, "steps": 400, "prompt": words}, options), timeout=WAIT)
    source = reader(server, f"/v1/jobs/{job.id}:watch?afterSequence=0&minimumInterval=0.2s")

    for kill in range(1, KILLS + 1):
        until(lambda: len(kept(source)) >= kill * BETWEEN, f"{kill * BETWEEN} kept events")
        server.kill()
        until(lambda: len(source.told("broken")) >= kill, "the break that a kill is")
        server.start()
    gave_up = source.tells("closed")

    seen, truth = kept(source), history(server, job)
    assert [(told["id"], told["type"]) for told in seen] == [
        (str(event.sequence), NAMES[event.WhichOneof("event")]) for event in truth
    ]
    assert [json_format.Parse(told["data"], job_pb2.JobEvent()) for told in seen] == truth
    assert len(source.told("open")) >= 1 + KILLS and not source.told("message", type="problem")
    assert gave_up["code"] == 204, "whoever has seen the end does not come again for ever"
    assert (truth[-1].state_change.state, truth[-1].attempt) == (job_pb2.Job.SUCCEEDED, 1 + KILLS), "each kill ended an attempt"


def test_whoever_watches_a_job_that_is_not_there_gives_up(start_server, reader):
    server = start_server()

    source = reader(server, "/v1/jobs/0199c3a4-5f60-7c1e-8a52-3f0d9b7e6c11:watch")

    assert source.tells("closed")["code"] == 404 and not source.told("broken")


def test_a_reader_that_is_sent_away_for_a_while_comes_again(start_server, reader):
    """The end of a server in good order is a break like any other."""
    server = start_server("--drain-timeout", "1s")
    server.listen = server.address
    job = server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="nobody-does-this"), timeout=WAIT)
    source = reader(server, f"/v1/jobs/{job.id}:watch")
    source.tells("message", type="snapshot")

    server.stop()
    source.tells("broken")
    server.start()
    until(lambda: len(source.told("message", type="snapshot")) == 2, "another snapshot")
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=WAIT)

    assert source.tells("closed")["code"] == 204
    assert [told["id"] for told in kept(source)] == ["2"], "the cancel, and nothing that was seen before"
