"""Requests over plain HTTP, as bytes that a test has in its hand, and what comes back.

Nothing here corrects a request: what a test writes is what the server reads. Events are parsed by a package that nobody here
wrote.
"""

import contextlib
import http.client
import json
import socket
import urllib.parse

import sseclient
from conftest import WAIT

PROBLEM = "application/problem+json"


class Answer:
    """A status, the headers as they came, and the whole body."""

    def __init__(self, response, body):
        self.status, self.body = response.status, body
        self.headers = response.getheaders()

    def header(self, name):
        """The one header of this name, or nothing."""
        values = [value for given, value in self.headers if given.lower() == name]
        assert len(values) < 2, f"{name} came twice: {values}"
        return values[0] if values else None

    def json(self):
        assert self.header("content-type") == "application/json", self.headers
        return json.loads(self.body)

    def problem(self):
        """What is wrong, held to RFC 9457 and to what all our problems have."""
        assert self.header("content-type") == PROBLEM, (self.status, self.headers, self.body[:500])
        problem = json.loads(self.body)
        assert problem["status"] == self.status and problem["domain"] == "longhaul", problem
        assert problem["type"] == "about:blank" and problem["title"] and problem["detail"], problem
        assert problem["reason"].replace("_", "").isupper(), problem
        return problem


def connect(server, receives=None):
    """A connection, on which the kernel takes about so many bytes that nobody has read yet."""
    host, port = server.address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=WAIT)
    if receives:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    return connection


def written(method, target, headers=(), body=None, host="localhost"):
    """A request of HTTP/1.1 as bytes."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    # Latin-1 has every byte, so a test can write any.
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def exchange(connection, request, method="GET"):
    """Sends bytes, and reads one answer."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        # A server may answer before it has read all, and hang up then.
        connection.sendall(request)
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response, response.read())


def send(server, request, method="GET"):
    """Sends bytes over a connection of their own, and reads the answer."""
    with connect(server) as connection:
        return exchange(connection, request, method)


def ask(server, method, target, body=None, headers=()):
    """Makes a request; a body that is no bytes is sent as its JSON."""
    headers = list(headers)
    if body is not None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not any(name == "content-type" for name, _ in headers):
            headers.append(("content-type", "application/json"))
    return send(server, written(method, target, headers, body), method)


def query(parameters):
    """The query of these parameters; a list is one of the same name several times."""
    return urllib.parse.urlencode(parameters, doseq=True)


@contextlib.contextmanager
def events(server, target, last=None, receives=None):
    """An iterator over the events at an address, for one who has seen `last` before."""
    headers = [("accept", "text/event-stream")]
    if last is not None:
        headers.append(("last-event-id", last))
    with connect(server, receives) as connection:
        connection.sendall(written("GET", target, headers))
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200, (response.status, response.read())
        assert response.getheader("content-type") == "text/event-stream"
        assert response.getheader("cache-control") == "no-store"
        yield sseclient.SSEClient(response).events()


def all_events(server, target, last=None):
    """Every event of a stream that ends."""
    with events(server, target, last) as stream:
        return list(stream)
