"""examples/render: its README's own commands, with a real ffmpeg."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import imageio_ffmpeg
import programs
import pytest
from client import Job, running, states, status, watch
from conftest import BINARY, ROOT, WAIT, quickest, until
from programs import cancel, ended, result, start

COMMANDS = re.compile(r"^\$ (longhaul worker .*?) &$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def render(server, tmp_path):
    """Runs the README's workers in a folder, with this ffmpeg, and returns the folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    (tmp_path / "out").mkdir()
    environment = {
        **os.environ, "PATH": f"{tools}:{BINARY.parent}:{os.environ['PATH']}", "LONGHAUL_SERVER": f"http://{server.address}",
    }
    commands = COMMANDS.findall((ROOT / "examples/render/README.md").read_text())
    assert len(commands) == 2, commands
    workers = []
    with (tmp_path / "log").open("w") as log:
        for command in commands:
            worker = subprocess.Popen(
                ["sh", "-c", f"exec {command}"], cwd=tmp_path, env=environment, start_new_session=True,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )
            workers.append(worker)
            assert worker.stdout.readline().startswith("longhaul worker"), (tmp_path / "log").read_text()
    yield tmp_path
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WAIT) == 0
        worker.stdout.close()


def fractions(messages):
    """Every fraction that was shown, in order."""
    shown = [message.progress for message in messages if message.HasField("progress")]
    return [progress.fraction for progress in shown if progress.HasField("fraction")]


def ffmpegs():
    """The ffmpegs that run here."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.path.basename(imageio_ffmpeg.get_ffmpeg_exe()) in os.readlink(entry / "exe"):
                found.append(int(entry.name))
    return found


def test_a_film_is_made_with_true_progress_and_made_small(server, render):
    film = start(server, "render", {"seconds": 20})
    messages = watch(server, film, minimum_interval={"nanos": 1_000_000})
    made = result(ended(server, film))

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    shown = fractions(messages)
    assert len(set(shown)) > 2 and shown == sorted(shown) and shown[0] < 0.9, shown
    assert status(server, film).progress.fraction == 1
    path = render / made["path"]
    assert path.name == f"{film.id}.mp4" and path.stat().st_size == made["bytes"] > 0

    small = start(server, "transcode", {"path": made["path"]})
    messages = watch(server, small)
    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"], messages
    assert 0 < result(ended(server, small))["bytes"] < made["bytes"]
    # Of the length that ffmpeg itself has found.
    assert status(server, small).progress.total == 20


def test_a_cancel_ends_ffmpeg_within_a_second(server, render):
    def measured():
        film = start(server, "render", {"seconds": 3600})
        running(server, film)
        until(ffmpegs, "an ffmpeg")
        asked = time.monotonic()
        cancel(server, film, grace=10)
        change = ended(server, film)
        took = time.monotonic() - asked
        assert not ffmpegs()
        assert (change.state, change.reason) == (Job.CANCELLED, "WORKER_STOPPED")
        return took

    assert quickest(measured, enough=1) < 1


def test_what_cannot_be_made_says_why(server, render):
    missing = ended(server, start(server, "render", {}))
    nothing = ended(server, start(server, "transcode", {"path": "no-such-film"}, options=programs.ONCE))

    assert (missing.failure.reason, missing.failure.permanent) == ("INVALID_INPUT", True)
    assert (nothing.failure.reason, nothing.state) == ("EXIT_CODE", Job.FAILED)
    assert "No such file" in nothing.failure.message, nothing.failure.message
