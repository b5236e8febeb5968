"""Peers below gRPC: readers of server-sent events, some of which stop reading, and connections that say little or nothing."""

import contextlib
import socket
import struct
import time

from client import demand

READ = 64 << 10


def dial(address, receive_buffer=None):
    """A connection, with little room for what is not read where that is asked for."""
    host, port = address.split(":")
    peer = socket.socket()
    if receive_buffer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.settimeout(5)
    peer.connect((host, int(port)))
    return peer


def ask(address, path):
    return f"GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n".encode()


def read_events(address, path, over, seconds):
    """Reads a watch, and goes away at its end or after some time."""
    until, seen = time.monotonic() + seconds, b""
    with contextlib.closing(dial(address)) as peer:
        peer.sendall(ask(address, path))
        peer.settimeout(0.5)
        while time.monotonic() < until and not over.is_set():
            try:
                data = peer.recv(READ)
            except TimeoutError:
                continue
            seen = (seen + data)[:100]
            if not data or data.endswith(b"\r\n0\r\n\r\n"):
                break
    # 404: its job is forgotten.
    demand(not seen or seen.split()[1] in (b"200", b"404"), path, "is answered by", seen.split(b"\r\n")[0])


def hold(address, path):
    """Asks for a watch and does not read it."""
    peer = dial(address, receive_buffer=4096)
    peer.sendall(ask(address, path))
    return peer


def stall(address, path, over, seconds):
    """The same, for some time."""
    with contextlib.closing(hold(address, path)):
        over.wait(seconds)


def say_nothing(address, over, seconds):
    """Connects, and waits."""
    with contextlib.closing(dial(address)):
        over.wait(seconds)


def stop_amid_headers(address, over, seconds):
    """Sends half of a request, and no more for ever."""
    with contextlib.closing(dial(address)) as peer:
        peer.sendall(b"GET /v1/jobs HTTP/1.1\r\nhost: ")
        peer.shutdown(socket.SHUT_WR)
        over.wait(seconds)


def reset(address, over, seconds):
    """Asks for a watch, and is gone without a goodbye."""
    peer = dial(address)
    peer.sendall(ask(address, "/v1/jobs:watch"))
    over.wait(min(seconds, 0.5))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def keep_alive(address, over, seconds):
    """One request after the other over one connection, with pauses."""
    until = time.monotonic() + seconds
    with contextlib.closing(dial(address)) as peer:
        while time.monotonic() < until and not over.is_set():
            peer.sendall(ask(address, "/v1/jobs?pageSize=2"))
            if not peer.recv(READ):
                return
            over.wait(1)


QUIET = [say_nothing, stop_amid_headers, reset, keep_alive]
