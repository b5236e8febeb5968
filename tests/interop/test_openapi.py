"""What schemathesis makes of `/openapi.json`: nothing that the server answers is anything but what the document says.

The seed is fixed, so that a failure comes again; LONGHAUL_SEED tries another. Watches are left out, since they have no end.
What no document can say is in openapi_hooks.py.
"""

import json
import os
import pathlib
import subprocess

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
