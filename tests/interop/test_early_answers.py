"""Answers to requests that nobody reads, as clients hear them that send their bodies all the same: curl, and http.client.

Such an answer used to come before the body's end, and was lost with the stream or the connection; so each is asked for often.
"""

import http.client
import shutil
import subprocess

import pytest
import web
from conftest import WAIT
from web import written

RUNS = 20
LARGE = 6 << 20
JOBS, CALL = "/v1/jobs", "/longhaul.v1.JobService/StartJob"
JSON = "content-type: application/json"

# The status, and what the request is: its target, its method, a header.
CASES = {
    "nothing there": (404, "/nowhere", "POST", JSON),
    "no such method": (405, JOBS, "PATCH", JSON),
    "no such method of a server's address": (405, "/healthz", "POST", JSON),
    "no JSON": (415, JOBS, "POST", "content-type: text/plain"),
    "a call that is no POST": (405, CALL, "PUT", JSON),
    "a call that is no gRPC": (415, CALL, "POST", JSON),
    "another host": (403, JOBS, "POST", "host: evil.example"),
    "another origin": (403, JOBS, "POST", "origin: http://evil.example"),
    "two hosts": (400, "http://evil.example/v1/jobs", "POST", "host: localhost"),
}
VERSIONS = {"HTTP/2": "--http2-prior-knowledge", "HTTP/1.1": "--http1.1"}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """A short body and a long one, as files."""
    folder = tmp_path_factory.mktemp("bodies")
    (folder / "short").write_bytes(b"x=1")
    (folder / "long").write_bytes(b" " * LARGE)
    return folder


def curl(server, version, body, case, *more):
    """The exit code of curl, and the status that it has seen."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")
    about = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    if version == "HTTP/2" and "HTTP2" not in about:
        pytest.skip("this machine's curl has no HTTP/2")
    _, target, method, header = case
    where = ["--request-target", target, f"http://{server.address}"] if "://" in target else [f"http://{server.address}{target}"]
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", VERSIONS[version], "-X", method, "-m", str(WAIT)]
    done = subprocess.run(
        [*command, "-H", header, *more, "--data-binary", f"@{body}", *where], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("size", ["short", "long"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_is_told_to_who_still_sends(server, bodies, name, version, size):
    case = CASES[name]
    if name == "two hosts" and version == "HTTP/2":
        pytest.skip("curl cannot name two hosts over HTTP/2")

    # curl would ask first whether to send as much, which is a case of its own.
    answers = [curl(server, version, bodies / size, case, "-H", "expect:") for _ in range(RUNS)]

    assert answers == [(0, str(case[0]), "")] * RUNS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asks", [["-H", "expect:"], []])
def test_a_body_that_is_too_large_is_told_so(server, bodies, version, asks):
    answers = [curl(server, version, bodies / "long", (413, JOBS, "POST", JSON), *asks) for _ in range(RUNS)]

    assert answers == [(0, "413", "")] * RUNS


@pytest.mark.parametrize("status, headers", [(413, {"content-type": "application/json"}), (415, {})])
def test_a_client_that_sends_all_before_it_reads_has_its_answer_and_keeps_its_connection(server, status, headers):
    host, port = server.address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT)
    for _ in range(RUNS):
        connection.request("POST", JOBS, b" " * LARGE, headers)
        socket = connection.sock
        answer = connection.getresponse()
        answer.read()

        assert answer.status == status and connection.sock is socket


@pytest.mark.parametrize("name", [name for name in CASES if name != "two hosts"])
def test_who_asks_whether_to_send_is_answered_and_not_asked_to(server, name):
    status, target, method, header = CASES[name]
    name, value = header.split(": ")
    host = value if name == "host" else "localhost"
    headers = [] if name == "host" else [(name, value)]
    headers += [("content-length", LARGE), ("expect", "100-continue")]

    with web.connect(server) as connection:
        connection.sendall(written(method, target, headers, host=host))
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece

    assert received.startswith(b"HTTP/1.1 %d " % status), received
    assert b"HTTP/1.1 100" not in received and b"connection: close\r\n" in received.lower()
