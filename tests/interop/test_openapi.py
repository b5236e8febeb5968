"""What schemathesis makes of `/openapi.json`: nothing that the server answers is anything but what the document says.

The seed is fixed, so that a failure comes again; LONGHAUL_SEED tries another. Watches are left out, since they have no end.
What no document can say is in openapi_hooks.py.
"""

import json
import os
import pathlib
import subprocess

from bad_http import MIB
from conftest import TOOLS
from test_bad_input import NO_SUCH_JOB
from web import ask

SEED = int(os.environ.get("LONGHAUL_SEED", "20261128"))
EXAMPLES = 30
"""Requests made up for each address and way of making them up."""
TIME_MAX = 240
WATCHES = ["/v1/jobs:watch", "/v1/jobs/{jobId}:watch"]


def test_schemathesis_finds_nothing(start_server, tmp_path):
    server = start_server()
    command = [TOOLS / "schemathesis", "run", f"http://{server.address}/openapi.json"]
    command += ["--checks", "all", "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--workers", "1"]
    command += ["--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "20", "--no-color"]
    command += [argument for path in WATCHES for argument in ("--exclude-path", path)]

    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_MAX, cwd=tmp_path, env=environment)

    print(f"LONGHAUL_SEED={SEED}", done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0, done.stdout


def test_the_document_describes_every_address(server):
    paths = json.loads(ask(server, "GET", "/openapi.json").body)["paths"]

    assert {path for path in paths if path.startswith("/v1/")} >= {*WATCHES, "/v1/jobs", "/v1/jobs/{jobId}"}
    for path, methods in paths.items():
        # A parameter that is none: whatever has the method refuses it at once.
        target = path.replace("{jobId}", NO_SUCH_JOB) + "?nothing=1"
        for method in ("GET", "POST", "DELETE", "PATCH"):
            answer = ask(server, method, target)
            assert (answer.status == 405) == (method.lower() not in methods), (method, path)


PROBLEMS = [
    ("POST", "/v1/jobs", {"content": b"{}"}, 400),
    ("POST", "/v1/jobs", {"content": b'{"kind":"a"}', "type": "text/plain"}, 415),
    ("POST", "/v1/jobs", {"content": b" " * (4 * MIB + 1)}, 413),
    ("POST", "/v1/jobs", {"content": b'{"kind":"b","requestId":"first"}'}, 409),
    ("POST", "/v1/jobs", {"content": b'{"kind":"a"}'}, 429),
    ("POST", "/v1/jobs:batchStart", {"content": b'{"requests":[{"kind":"a"}]}'}, 429),
    ("POST", "/ai/start", {"content": b'{"prompt":"a"}'}, 429),
    ("GET", "/v1/jobs/{jobId}", {}, 404),
    ("GET", "/v1/jobs/{jobId}:watch", {}, 404),
    ("DELETE", "/v1/jobs/{first}", {}, 409),
    ("POST", "/v1/jobs/{first}:retry", {}, 409),
    ("GET", "/ai/status/{jobId}", {}, 404),
    ("GET", "/ai/status/{jobId}", {"accept": "text/html"}, 404),
    ("POST", "/ai/cancel", {"content": b'{"jobId":"%s"}' % NO_SUCH_JOB.encode()}, 404),
]


def test_what_goes_wrong_is_as_the_document_says(start_server):
    server = start_server("--queue-max", "1")
    document = ask(server, "GET", "/openapi.json").json()
    started = ask(server, "POST", "/v1/jobs", {"kind": "a", "requestId": "first"})
    again = ask(server, "POST", "/v1/jobs", {"kind": "a", "requestId": "first"})
    first = started.json()["id"]

    def held_to(answer, path, method):
        described = document["paths"][path.replace("{first}", "{jobId}")][method.lower()]["responses"][str(answer.status)]
        if "$ref" in described:
            described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        assert answer.header("content-type").split(";")[0] in described["content"], (method, path)
        for name in {"location", "longhaul-repeated", "allow", "retry-after"}:
            names = {header.lower() for header, one in described.get("headers", {}).items() if one["required"]}
            assert (answer.header(name) is not None) == (name in names), (method, path, answer.status, name)

    held_to(started, "/v1/jobs", "POST"), held_to(again, "/v1/jobs", "POST")
    for method, path, said, expected in PROBLEMS:
        target = path.replace("{jobId}", NO_SUCH_JOB).replace("{first}", first)
        headers = [(name, said[key]) for key, name in (("type", "content-type"), ("accept", "accept")) if key in said]
        answer = ask(server, method, target, said.get("content"), headers)
        assert answer.status == expected, (method, path, answer.body)
        held_to(answer, path, method)
    for path, methods in document["paths"].items():
        held_to(ask(server, "PATCH", path.replace("{jobId}", NO_SUCH_JOB)), path, next(iter(methods)))
