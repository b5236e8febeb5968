"""What a prober sees: whether the server is there, and whether it takes work."""

import json
import signal
import sqlite3
import urllib.error
import urllib.request

import pytest
from client import TIMEOUT, running, start
from conftest import until

BUSY_SECONDS = 60
"""How long the job runs that holds up the end."""


def ask(server, path, method="GET"):
    """The status, the headers and the text of an answer; a refused connection has no status."""
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return None, {}, ""


def check_unavailable(answer):
    """Fails where an answer does not say in full that it is to be tried again."""
    status, headers, text = answer
    assert status == 503, text
    assert headers["Content-Type"] == "application/problem+json"
    assert int(headers["Retry-After"]) >= 1
    assert json.loads(text)["status"] == 503


@pytest.mark.parametrize(("path", "text"), [("/healthz", "alive\n"), ("/readyz", "ready\n")])
def test_a_server_that_is_well_says_so(server, path, text):
    status, headers, body = ask(server, path)
    assert (status, body) == (200, text)
    assert headers["Cache-Control"] == "no-cache"
    assert ask(server, path, "HEAD")[::2] == (200, "")
    refused = ask(server, path, "POST")
    assert refused[0] == 405
    assert refused[1]["Allow"] == "GET, HEAD"


def test_a_server_whose_store_is_locked_is_alive_and_not_ready(start_server):
    server = start_server()
    other = sqlite3.connect(server.data_dir / "store/longhaul.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    refused = until(lambda: (answer := ask(server, "/readyz"))[0] != 200 and answer, "not ready")

    check_unavailable(refused)
    assert ask(server, "/healthz")[0] == 200
    other.execute("ROLLBACK")
    until(lambda: ask(server, "/readyz")[0] == 200, "ready again")
    other.close()


def test_a_server_that_drains_is_alive_and_not_ready(start_server):
    server = start_server("--drain-timeout", "5s")
    job = start(server, {"seconds": BUSY_SECONDS})
    running(server, job)
    assert ask(server, "/readyz")[0] == 200

    server.process.send_signal(signal.SIGTERM)

    check_unavailable(until(lambda: (answer := ask(server, "/readyz"))[0] != 200 and answer, "not ready"))
    assert ask(server, "/healthz")[0] == 200
    server.channel.close()
    assert server.process.wait(TIMEOUT) == 0
