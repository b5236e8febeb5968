"""Pages call by gRPC-Web: @connectrpc's clients, over either version of HTTP, and the form in base64 by hand."""

import base64
import http.client
import json
import pathlib
import struct
import subprocess

import foreign
import pytest
from conftest import FILES, GOOGLE, PROTO, WAIT
from google.rpc import error_details_pb2
from grpc_tools import protoc
from longhaul.v1 import job_pb2, job_service_pb2

FOLDER = pathlib.Path(__file__).parent / "web"
DETAILS = "google/rpc/error_details.proto"
TRAILERS = 0x80


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory):
    """The contract and the details of errors, for clients without generated code."""
    file = tmp_path_factory.mktemp("descriptors") / "set"
    packages = pathlib.Path(error_details_pb2.__file__).parents[2]
    paths = [f"-I{path}" for path in (PROTO, GOOGLE, packages)]
    assert protoc.main(["protoc", *paths, "--include_imports", f"--descriptor_set_out={file}", *FILES, DETAILS]) == 0
    return file


@pytest.mark.parametrize("transport", ["fetch", "http1", "http2"])
def test_connectrpc_starts_watches_cancels_and_is_refused(start_server, descriptors, transport):
    foreign.need_node(FOLDER)
    server = start_server()

    command = ["node", FOLDER / "client.mjs", transport, f"http://{server.address}", descriptors]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)

    assert seen["started"] == "PENDING"
    assert seen["watched"]["states"] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert seen["watched"]["output"] == "naïve – or not"
    assert seen["cancelled"] in ["CANCELLING", "CANCELLED"] and seen["followed"] == "CANCELLED"
    reasons = {
        "nothing": ("InvalidArgument", "INVALID_REQUEST"),
        "missing": ("NotFound", "JOB_NOT_FOUND"),
        "missingWatch": ("NotFound", "JOB_NOT_FOUND"),
        "large": ("ResourceExhausted", "MESSAGE_TOO_LARGE"),
    }
    for name, (code, reason) in reasons.items():
        error = seen[name]
        assert (error["code"], error["reason"], error["domain"]) == (code, reason, "longhaul"), (name, error)
        assert error["message"]
    assert "kind" in seen["nothing"]["fields"]
    assert seen["late"]["code"] == "DeadlineExceeded"
    assert seen["listed"] == 2


def frames(body):
    """The frames of a body: what each is, and what is in it."""
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        yield flag, body[5 : 5 + length]
        body = body[5 + length :]


def test_a_call_in_base64_is_answered_in_base64(server):
    message = job_service_pb2.StartJobRequest(kind="simulate", input={"seconds": 0.05}).SerializeToString()
    body = base64.b64encode(struct.pack(">BI", 0, len(message)) + message)
    text = "application/grpc-web-text+proto"

    connection = http.client.HTTPConnection(server.address, timeout=WAIT)
    connection.request(
        "POST", "/longhaul.v1.JobService/StartJob", body, {"Content-Type": text, "Accept": text, "X-Grpc-Web": "1"}
    )
    answer = connection.getresponse()
    # Each piece is padded on its own.
    encoded = answer.read()
    raw = b"".join(base64.b64decode(encoded[at : at + 4]) for at in range(0, len(encoded), 4))
    (flag, content), (last, trailers) = frames(raw)

    assert (answer.status, answer.headers["Content-Type"]) == (200, text)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert flag == 0 and last == TRAILERS and b"grpc-status:0" in trailers
    job = job_pb2.Job.FromString(content)
    assert server.jobs.GetStatus(job_service_pb2.GetStatusRequest(job_id=job.id), timeout=WAIT).kind == "simulate"
