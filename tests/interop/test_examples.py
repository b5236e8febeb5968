"""Every example does what its README says, and goes on, stops and leaves as a worker or a client should."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile

import foreign
import pytest
from client import Job, history, rendered, states, status, watch
from conftest import BINARY, ROOT, TOOLS, WAIT, need_program, until
from longhaul.v1 import job_service_pb2, worker_service_pb2, worker_service_pb2_grpc

EXAMPLES = ROOT / "examples"
WORKERS = {
    "python": ["python", "worker.py"],
    "typescript": ["node", "--import", "tsx", "worker.ts"],
    "shell": ["./worker.sh"],
}
CLIENTS = {
    "python": ["python", "client.py"],
    "typescript": ["node", "--import", "tsx", "client.ts"],
}
INSTALLED = {"npm ci"}
"""Commands of a README that a test does once for all, and only where it is needed."""
GENERATED = set()
"""Languages whose code from the contract is there."""
BLOCK = re.compile(r"^```console\n((?:.*\n)*?)```$", re.M)
WORDS = 2 * "to be or not to be\nthat is the question\n"


def commands(language):
    """What a README tells to type."""
    blocks = BLOCK.findall((EXAMPLES / language / "README.md").read_text())
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def environment(address):
    path = f"{BINARY.parent}:{TOOLS}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LONGHAUL_SERVER": address, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def ready():
    """Makes an example ready to run, as its README says, where that is possible: `ready("python")`."""

    def prepare(language):
        if language == "typescript":
            foreign.need_node(EXAMPLES / language)
        if language == "shell":
            need_program("jq")
        generate = [command for command in commands(language) if "protoc" in command or "generate" in command]
        if language not in GENERATED:
            for command in generate:
                shell(command, EXAMPLES / language, "nowhere:1")
            GENERATED.add(language)

    return prepare


def shell(script, folder, address):
    """Runs a script to its end, and returns what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        bash = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{script}"], cwd=folder, env=environment(address),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )
        try:
            code = bash.wait(2 * WAIT)
        except subprocess.TimeoutExpired:
            code = "none"
        finally:
            end(bash)
        output.seek(0)
        printed = output.read()
    assert code == 0, f"exit code {code}:\n{printed}"
    return printed


def end(program):
    """Ends whatever is left of a program's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


@pytest.fixture
def run(tmp_path):
    """Starts the program of an example: `run("python", WORKERS["python"], address)`."""
    programs = []

    def start(language, command, address, *arguments):
        file = tmp_path / f"{len(programs)}.txt"
        with file.open("w") as output:
            program = subprocess.Popen(
                ["env", *command, *arguments], cwd=EXAMPLES / language, env=environment(address),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )
        program.printed = file.read_text
        programs.append(program)
        return program

    yield start
    for program in programs:
        end(program)
        # Shown by pytest where the test has failed.
        print(*program.args, program.printed(), sep="\n  ")


def counting(server, text=WORDS):
    request = job_service_pb2.StartJobRequest(kind="count-words", input={"text": text})
    return server.jobs.StartJob(request, timeout=30)


def begun(server, job):
    """Waits for the first output of a job."""
    until(lambda: rendered(history(server, job)), "output")


@pytest.mark.parametrize("language", WORKERS)
def test_what_its_readme_says_is_true(server, ready, language):
    ready(language)
    typed = [command for command in commands(language) if command not in INSTALLED]

    # The worker is the program in the background, and must leave in good order.
    printed = shell("\n".join([*typed, "kill $!", "wait $!"]), EXAMPLES / language, server.address)

    assert re.search(r"\b2  to be$", printed, re.M) and re.search(r"\b4  or not to be$", printed, re.M)
    assert "SUCCEEDED" in printed
    assert re.search(r'"lines": ?2\b', printed) and re.search(r'"words": ?6\b', printed)


@pytest.mark.parametrize("language", CLIENTS)
def test_it_goes_on_over_a_break(server, ready, run, language):
    ready(language)
    proxy = foreign.Proxy(server.address)
    worker = run(language, WORKERS[language], proxy.address)
    client = run(language, CLIENTS[language], proxy.address, WORDS)
    until(lambda: "that is the question" in client.printed(), "output")

    proxy.cut()
    until(lambda: "there will be a new one" in worker.printed(), "a break of the worker's stream")
    proxy.mend()

    assert client.wait(WAIT) == 0, client.printed()
    counts = [int(line.split()[0]) for line in client.printed().splitlines() if re.match(r" +\d+  \w", line)]
    assert counts == [6, 4, 6, 4], "a line is missing, or came twice"
    job = re.search(r"^job +(\S+)$", client.printed(), re.M)[1]
    after = server.jobs.GetStatus(job_service_pb2.GetStatusRequest(job_id=job), timeout=30)
    assert (after.state, after.attempt) == (Job.SUCCEEDED, 1)
    proxy.close()


@pytest.mark.parametrize("language", WORKERS)
def test_it_stops_a_job_that_is_cancelled(server, ready, run, language):
    ready(language)
    run(language, WORKERS[language], server.address)
    job = counting(server, "again and again\n" * 400)
    begun(server, job)

    request = job_service_pb2.CancelJobRequest(job_id=job.id, grace_period={"seconds": 60})
    server.jobs.CancelJob(request, timeout=30)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "CANCELLING", "CANCELLED"]
    assert messages[-1].state_change.reason == "WORKER_STOPPED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("language", WORKERS)
def test_it_finishes_what_it_has_before_it_leaves(server, ready, run, language, number):
    ready(language)
    worker = run(language, WORKERS[language], server.address)
    job = counting(server)
    begun(server, job)

    # As Ctrl-C does: all that the worker has started hears of it as well.
    os.killpg(worker.pid, number)

    # In shell, what is left of a job are dozens of processes, one after the other.
    assert worker.wait(3 * WAIT) == 0, worker.printed()
    messages = watch(server, job)
    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and status(server, job).attempt == 1
    assert rendered(messages).count("to be or not to be\n") == 2


@pytest.mark.parametrize("language", WORKERS)
def test_a_bad_input_is_a_failure_that_says_so(server, ready, run, language):
    ready(language)
    run(language, WORKERS[language], server.address)

    options = {"retry_policy": {"maximum_attempts": 1}}
    request = job_service_pb2.StartJobRequest(kind="count-words", input={"text": None}, options=options)
    job = server.jobs.StartJob(request, timeout=30)

    assert states(watch(server, job)) == ["PENDING", "RUNNING", "FAILED"]
    assert status(server, job).failure.reason in ("HANDLER_ERROR", "EXIT_CODE")


def test_work_that_holds_the_interpreter_does_not_silence_its_worker(start_server, ready, run):
    ready("python")
    server = start_server("--lease-duration", "2s")
    proxy = foreign.Proxy(server.address)
    worker = run("python", WORKERS["python"], proxy.address)
    job = counting(server, "again and again\n" * 20)
    begun(server, job)

    # To its threads, a process that is stopped is one whose interpreter is held.
    os.kill(worker.pid, signal.SIGSTOP)
    # And those who speak for it meanwhile have to notice on their own that their connection leads nowhere.
    proxy.swallow()
    for _ in range(2):
        spend_a_lease(server)
    os.kill(worker.pid, signal.SIGCONT)

    assert states(watch(server, job)) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert status(server, job).attempt == 1
    proxy.close()


def spend_a_lease(server):
    """Takes as long as a lease lasts without heartbeats."""
    job = server.jobs.StartJob(job_service_pb2.StartJobRequest(kind="canary"), timeout=30)
    workers = worker_service_pb2_grpc.WorkerServiceStub(server.channel)
    request = worker_service_pb2.LeaseJobsRequest(worker_id="canary", kinds=["canary"], wait={"seconds": 10})
    [assignment] = workers.LeaseJobs(request, timeout=30).assignments
    report = worker_service_pb2.Report(lease_token=assignment.lease_token)
    workers.Heartbeat(worker_service_pb2.HeartbeatRequest(reports=[report]), timeout=30)
    until(lambda: status(server, job).state != Job.RUNNING, "the end of a lease")
    server.jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), timeout=30)


def test_heartbeats_end_with_the_worker_that_they_are_for(start_server, ready, run):
    ready("python")
    server = start_server()
    worker = run("python", WORKERS["python"], server.address)
    job = counting(server, "again and again\n" * 400)
    begun(server, job)
    assert group(worker), "the heartbeats have a process of their own"

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()

    until(lambda: not group(worker), "the end of the heartbeats")


def group(worker):
    """The other processes of a program's session."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [pid for pid, session, state in rows if int(session) == worker.pid != int(pid) and "Z" not in state]


def test_what_an_example_needs_is_what_the_tests_install():
    needed = (EXAMPLES / "python" / "requirements.txt").read_text().splitlines()
    installed = (ROOT / "tests" / "requirements.txt").read_text().splitlines()

    assert needed and set(needed) <= set(installed)
