"""Programs of any language as workers: what they say, how they end, and that nothing of them is left."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import foreign
import programs
import pytest
from client import Job, history, rendered, running, states, status, watch
from conftest import BINARY, WAIT, Server, until
from programs import ONCE, cancel, ended, result, start

LOOP = """\
import json, os, signal, sys, time
def say(**message): print(json.dumps(message), flush=True)
"""
"""What a persistent program begins with."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose leases last two seconds, so that whoever is late is found out soon."""
    server = Server(tmp_path_factory.mktemp("server"), "--lease-duration", "2s", "--cancel-grace", "1s")
    yield server
    server.stop()


@pytest.fixture
def worker(tmp_path, request):
    """Starts workers: `worker(server, program, *flags)`. Each test has a kind of its own: `worker.kind`."""
    workers = []

    def begin(server, program, *flags, **options):
        options = {"address": server.address, "kind": begin.kind, "name": f"worker-{len(workers) + 1}", **options}
        workers.append(programs.Worker(tmp_path, options.pop("address"), program, *flags, **options))
        return workers[-1]

    begin.kind = f"program-{abs(hash(request.node.name))}"
    yield begin
    for each in workers:
        each.close()


# What it says.


def test_a_program_tells_all_that_a_worker_can(server, worker):
    begun = worker(
        server,
        """
        print("to be ", end="", flush=True)
        time.sleep(0.1)
        print("or not\\n{no message}", flush=True)
        say(progress=0.25, stage="Reading", completed=1, total=4, unit="pages")
        say(output="hm", channel="reasoning")
        say(log="careful", level="warn")
        say(metrics={"words": 2})
        print("a line on standard error", file=sys.stderr)
        say(stage="Writing")
        say(result={"got": job["input"], "kind": job["kind"], "attempt": job["attempt"], "id": job["id"]})
        """,
    )

    job = start(server, worker.kind, {"text": "tö be", "nested": {"n": 1.5}})
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == "to be or not\n{no message}\n" and rendered(messages, "reasoning") == "hm"
    assert [m.stage.name for m in messages if m.HasField("stage")] == ["Reading", "Writing"]
    logs = {(m.log.level, m.log.message) for m in messages if m.HasField("log")}
    assert {message for _, message in logs} == {"careful", "a line on standard error"}
    final = status(server, job)
    assert result(final) == {
        "got": {"text": "tö be", "nested": {"n": 1.5}}, "kind": worker.kind, "attempt": 1, "id": job.id,
    }
    assert (final.progress.total, final.progress.unit, final.metrics["words"]) == (4, "pages", 2)
    begun.stop()


def test_progress_is_shown_while_the_program_runs(server, worker, tmp_path):
    gate = tmp_path / "go"
    worker(
        server,
        f"""
        say(completed=1, total=4)
        while not os.path.exists({str(gate)!r}): time.sleep(0.01)
        """,
    )

    job = start(server, worker.kind)

    until(lambda: status(server, job).progress.fraction == 0.25, "a quarter")
    gate.touch()
    assert ended(server, job).state == Job.SUCCEEDED


@pytest.mark.parametrize(
    ("program", "reason", "says", "permanent"),
    [
        ("sys.exit('no such model')", "EXIT_CODE", "exit code 1: no such model", False),
        ("sys.exit(75)", "TEMPORARY_FAILURE", "exit code 75", False),
        ("say(failure={'reason': 'NO_SPEECH', 'message': 'silence', 'permanent': True})", "NO_SPEECH", "silence", True),
        ("say(failure={'message': 'oh'}); sys.exit(3)", "HANDLER_ERROR", "oh", False),
        ("say(result=1); sys.exit(3)", "EXIT_CODE", "exit code 3", False),
        ("ctypes.string_at(0)", "KILLED", "signal 11 (SIGSEGV)", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", "KILLED", "signal 9 (SIGKILL)", False),
        ("raise ValueError('a bad value')", "EXIT_CODE", "exit code 1: ValueError: a bad value", False),
    ],
)
def test_every_end_is_an_outcome_with_its_reason(server, worker, program, reason, says, permanent):
    worker(server, program)

    change = ended(server, start(server, worker.kind, options=ONCE))

    assert change.state == Job.FAILED
    assert (change.failure.reason, change.failure.permanent) == (reason, permanent)
    assert says in change.failure.message
    if reason == "EXIT_CODE":
        assert change.failure.details["exit_code"] > 0


def test_a_program_that_asks_for_it_is_tried_again(server, worker):
    worker(server, "sys.exit(75 if job['attempt'] < 3 else 0)")

    job = start(server, worker.kind, options={"retryPolicy": {"initialInterval": "0.05s"}})

    assert states(watch(server, job)) == ["PENDING", *["RUNNING", "RETRYING", "PENDING"] * 2, "RUNNING", "SUCCEEDED"]


def test_an_exit_without_a_result_is_a_success_with_none(server, worker):
    worker(server, "pass")

    change = ended(server, start(server, worker.kind))

    assert change.state == Job.SUCCEEDED and change.result.HasField("null_value")


def test_a_program_may_close_its_output_early(server, worker):
    worker(server, "say(output='all of it'); os.close(1); os.close(2); time.sleep(0.3)")

    messages = watch(server, start(server, worker.kind))

    assert states(messages)[-1] == "SUCCEEDED" and rendered(messages) == "all of it"


def test_a_program_need_not_read_its_job(server, worker):
    worker(server, "import sys; sys.exit(0)", preamble="")

    change = ended(server, start(server, worker.kind, {"text": "x" * 500_000}))

    assert change.state == Job.SUCCEEDED


def test_a_large_job_reaches_a_program_that_writes_before_it_reads(server, worker):
    worker(
        server,
        """
        import json, sys
        print("x" * 300_000, flush=True)
        job = json.loads(sys.stdin.readline())
        print(json.dumps({"result": len(job["input"]["text"])}))
        """,
        preamble="",
    )

    change = ended(server, start(server, worker.kind, {"text": "y" * 900_000}))

    assert result(change) == 900_000


def test_the_job_may_be_in_a_file_and_in_the_arguments(server, tmp_path):
    source = tmp_path / "program.py"
    source.write_text("import json, os, sys\njob = json.load(open(os.environ['LONGHAUL_JOB_FILE']))\n"
                      "print(json.dumps({'result': [sys.argv[1:], job['input'], sys.stdin.read(),"
                      " os.environ['LONGHAUL_JOB_ID'] == job['id'], os.environ['LONGHAUL_JOB_FILE']]}))")
    command = [BINARY, "worker", "--server", f"http://{server.address}", "--kind", "arguments", "--job", "file", "--"]
    command += [sys.executable, source, "{input.name}", "n={input.n}", "{job.attempt}", "{untouched}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        arguments, read, stdin, same, file = result(ended(server, start(server, "arguments", {"name": "a b;c", "n": 3})))
        missing = ended(server, start(server, "arguments", {"n": 3}))
        option = ended(server, start(server, "arguments", {"name": "--help", "n": 3}))
    finally:
        process.terminate()
        assert process.wait(WAIT) == 0

    assert arguments == ["a b;c", "n=3", "1", "{untouched}"]
    assert read == {"name": "a b;c", "n": 3} and stdin == "" and same
    assert not os.path.exists(file)
    for refused, says in ((missing, "input.name is missing"), (option, 'must not begin with "-"')):
        assert (refused.state, refused.failure.reason, refused.failure.permanent) == (Job.FAILED, "INVALID_INPUT", True)
        assert says in refused.failure.message


def test_lines_for_people_are_progress_too(server, worker, tmp_path):
    gate = tmp_path / "go"
    worker(
        server,
        f"""
        sys.stderr.write(" 10%|#   |\\r 20%|##  |\\r"); sys.stderr.flush()
        print("page 3/10", flush=True)
        while not os.path.exists({str(gate)!r}): time.sleep(0.01)
        """,
        "--progress", "lines",
    )

    job = start(server, worker.kind)
    until(lambda: status(server, job).progress.completed == 3, "three pages")
    gate.touch()
    messages = watch(server, job)

    assert states(messages)[-1] == "SUCCEEDED" and rendered(messages) == "page 3/10\n"
    assert not [m for m in messages if m.HasField("log")], "what is drawn over is no line of the log"


# What it sees.


def test_a_program_has_a_clean_environment_and_no_foreign_file(server, worker, tmp_path):
    program = """
        fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}")}
        ours = {fd: target for fd, target in fds.items() if not target.startswith("/proc/")}
        limits = [resource.getrlimit(resource.RLIMIT_NOFILE)[0]]
        say(result={"env": dict(os.environ), "fds": ours, "group": os.getpgrp() == os.getpid(), "limits": limits})
        """
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    os.environ["SECRET_OF_OURS"] = "s3cret"
    try:
        worker(server, program, "--open-files-max", "64", "--env", "GIVEN=1", pass_fds=[inherited])
        seen = result(ended(server, start(server, worker.kind)))
    finally:
        del os.environ["SECRET_OF_OURS"]
        os.close(inherited)

    assert sorted(seen["fds"]) == ["0", "1", "2"], seen["fds"]
    assert all(target.startswith("pipe:") for target in seen["fds"].values())
    assert seen["group"] and seen["limits"] == [64]
    env = seen["env"]
    assert env["GIVEN"] == "1" and "PATH" in env and "SECRET_OF_OURS" not in env
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "MARK", "GIVEN"}
    assert set(env) <= allowed | {"LONGHAUL_JOB_ID", "LONGHAUL_JOB_KIND", "LONGHAUL_JOB_ATTEMPT"}, env


# Whatever it does, it holds up nobody.


def test_a_program_that_holds_its_lock_for_three_leases_keeps_its_lease(server, worker):
    # PyDLL calls with Python's global lock held, so that no thread of the program could give a sign.
    worker(server, "ctypes.PyDLL(None).usleep(7_000_000); say(result=1)")

    messages = watch(server, start(server, worker.kind))

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"]


ORPHANS = """
def orphan(seconds):
    # Forked twice, in a session of its own, deaf to SIGTERM.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(seconds)
        os._exit(0)
    os.wait()
"""


def test_a_program_deaf_to_sigterm_is_gone_after_the_grace_period_with_its_orphans(server, worker):
    begun = worker(
        server,
        ORPHANS + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\norphan(60)\n"
        "subprocess.Popen(['sleep', '60'])\nsay(output='deaf')\ntime.sleep(60)\n",
    )
    job = start(server, worker.kind)
    until(lambda: len(begun.programs()) == 3, "a program, its child and its orphan")
    running(server, job)

    asked = time.monotonic()
    cancel(server, job, grace=1)
    time.sleep(0.3)
    assert len(begun.programs()) >= 2, "nobody is killed before the grace period is over"
    change = ended(server, job)
    took = time.monotonic() - asked
    begun.leaves_nothing()

    assert change.state == Job.CANCELLED and 0.5 < took < 3, took
    begun.stop()


def test_a_program_that_stops_as_asked_has_time_for_it(server, worker, tmp_path):
    worker(
        server,
        f"""
        def stop(*_):
            open({str(tmp_path / "stopped")!r}, "w").close()
            sys.exit(1)
        signal.signal(signal.SIGTERM, stop)
        say(output="ready")
        time.sleep(60)
        """,
    )
    job = start(server, worker.kind)
    until(lambda: has_output(server, job), "output")

    cancel(server, job, grace=20)
    change = ended(server, job)

    assert (change.state, change.reason) == (Job.CANCELLED, "WORKER_STOPPED")
    assert (tmp_path / "stopped").exists()


def has_output(server, job):
    return any(event.HasField("output") for event in history(server, job))


def test_what_a_program_leaves_running_ends_with_it(server, worker):
    begun = worker(server, ORPHANS + "orphan(60)\nsubprocess.Popen(['sleep', '60'])\nsay(result=os.getpid())\n")

    assert ended(server, start(server, worker.kind)).state == Job.SUCCEEDED
    assert not begun.programs(), "it ends before its job does"


def test_a_flood_without_a_line_end_costs_itself_only(server, worker):
    begun = worker(
        server,
        """
        if job["input"].get("flood"):
            chunk = b"x" * (1 << 20)
            for _ in range(1024):
                os.write(1, chunk)
        else:
            for step in range(4):
                say(progress=step / 4)
                time.sleep(0.2)
        """,
        "--slots", "2",
    )
    calm = start(server, worker.kind)
    assert ended(server, calm).state == Job.SUCCEEDED
    before = begun.memory()

    flood = start(server, worker.kind, {"flood": True}, options=ONCE)
    beside = [ended(server, start(server, worker.kind)).state for _ in range(3)]
    change = ended(server, flood)

    assert beside == [Job.SUCCEEDED] * 3
    assert (change.state, change.failure.reason, change.failure.permanent) == (Job.FAILED, "OUTPUT_LIMIT", True)
    begun.leaves_nothing()
    assert begun.memory() - before < 16 << 20, f"{begun.memory() - before} bytes more"
    begun.stop()


def test_a_flood_of_log_lines_is_cut_off(server, worker):
    worker(server, "for n in range(60_000): print(f'line {n} ' + 'x' * 100, file=sys.stderr)\nsay(result=1)")

    job = start(server, worker.kind)
    messages = watch(server, job)
    logs = [message.log.message for message in messages if message.HasField("log")]

    assert states(messages)[-1] == "SUCCEEDED"
    assert len(logs) <= 10_001 and logs[0].startswith("line 0 "), len(logs)


def test_a_program_that_forks_without_end_is_ended(server, worker):
    begun = worker(
        server,
        """
        if job["input"].get("calm"):
            time.sleep(1)
            sys.exit()
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
        """,
        "--processes-max", "50", "--slots", "2",
    )
    beside = start(server, worker.kind, {"calm": True}, options=ONCE)
    running(server, beside)
    job = start(server, worker.kind, options=ONCE)
    change = ended(server, job)

    assert ended(server, beside).state == Job.SUCCEEDED

    assert (change.state, change.failure.reason) == (Job.FAILED, "KILLED")
    assert "more processes than it may" in change.failure.message
    begun.leaves_nothing()
    begun.stop()


@pytest.mark.parametrize(
    ("flag", "program", "says"),
    [
        (("--memory-max", "200MiB"), "x = bytearray(400 << 20)", "MemoryError"),
        (("--cpu-time-max", "1s"), "while True: pass", "SIG"),
        (("--file-size-max", "1MiB"), "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
         "open(sys.argv[0] + '.out', 'wb', 0).write(b'x' * (2 << 20)); open(sys.argv[0] + '.out', 'ab', 0).write(b'x')",
         "SIGXFSZ"),
        (("--open-files-max", "20"), "files = [open('/dev/null') for _ in range(30)]", "Too many open files"),
    ],
    ids=["memory", "processor", "file", "files"],
)
def test_a_limit_is_held(server, worker, flag, program, says):
    worker(server, program, *flag)

    change = ended(server, start(server, worker.kind, options=ONCE))

    assert change.state == Job.FAILED and says in change.failure.message, change.failure.message


def test_when_memory_runs_out_the_program_dies_of_it_and_says_so(server, worker):
    group = pathlib.Path(f"/sys/fs/cgroup/memory/longhaul-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError as error:
        # Nobody can install it: a kernel has such groups, and we may make them, or not.
        pytest.skip(f"no group with a memory of its own can be made here: {error}")
    try:
        begun = worker(
            server,
            f"""
            open("{group}/cgroup.procs", "w").write(str(os.getpid()))
            hog = [bytearray(b"x" * (1 << 20)) for _ in range(200)]
            """,
        )
        change = ended(server, start(server, worker.kind, options=ONCE))
        begun.leaves_nothing()
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
        group.rmdir()

    assert (change.state, change.failure.reason) == (Job.FAILED, "KILLED")
    assert "memory has run out" in change.failure.message, change.failure.message


# Whoever dies.


def test_a_killed_supervisor_takes_its_programs_along_and_the_job_runs_elsewhere(server, worker):
    program = ORPHANS + "orphan(60)\nsay(output=f'{job[\"attempt\"]} ')\nif job['attempt'] == 1: time.sleep(60)\n"
    victim = worker(server, program)
    job = start(server, worker.kind)
    until(lambda: len(victim.programs()) == 2, "a program and its orphan")
    running(server, job)

    os.kill(victim.process.pid, signal.SIGKILL)
    victim.leaves_nothing()
    worker(server, program)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == "2 "


def free(server, kind):
    """How many more jobs of a kind would be taken at once."""
    with urllib.request.urlopen(f"http://{server.address}/overview", timeout=WAIT) as answer:
        workers = json.load(answer)["workers"]
    return sum(worker["free"] for worker in workers if kind in worker["kinds"])


def test_a_worker_that_stops_lets_its_jobs_end(server, worker, tmp_path):
    gate = tmp_path / "go"
    begun = worker(server, f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)", "--slots", "2")
    job = start(server, worker.kind)
    running(server, job)

    until(lambda: free(server, worker.kind) == 1, "a worker with a slot to spare")

    begun.process.send_signal(signal.SIGTERM)
    until(lambda: free(server, worker.kind) == 0, "a worker that wants nothing more")
    later = start(server, worker.kind)
    gate.touch()

    assert ended(server, job).state == Job.SUCCEEDED
    assert begun.process.wait(WAIT) == 0
    assert status(server, later).state == Job.PENDING
    server.jobs.CancelJob(programs.job_service_pb2.CancelJobRequest(job_id=later.id))


def test_a_worker_that_stops_gives_back_what_does_not_end(server, worker):
    begun = worker(server, "time.sleep(60)", "--drain-timeout", "200ms")
    job = start(server, worker.kind)
    running(server, job)

    begun.stop()

    begun.leaves_nothing()
    given_back = status(server, job)
    assert (given_back.state, given_back.counted_attempts) == (Job.PENDING, 0)
    cancel(server, job, grace=1)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_program_outlives_the_server(start_server, worker, tmp_path, end):
    server = start_server("--lease-duration", "2s", "--drain-timeout", "1s")
    proxy = foreign.Proxy(server.address)
    gate = tmp_path / "go"
    begun = worker(
        server,
        f"""
        say(output="before, ", progress=0.5, stage="Half")
        while not os.path.exists({str(gate)!r}): time.sleep(0.01)
        say(output="after")
        say(result=os.getpid())
        """,
        address=proxy.address,
    )
    job = start(server, worker.kind)
    until(lambda: has_output(server, job), "output")

    getattr(server, end)()
    server.start()
    proxy.lead_to(server.address)
    time.sleep(3)
    gate.touch()
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and rendered(messages) == "before, after"
    assert status(server, job).counted_attempts == 1
    begun.stop()
    proxy.close()


def test_a_program_whose_lease_is_lost_is_killed(server, worker):
    begun = worker(server, "say(output=str(job['attempt']))\ntime.sleep(60 if job['attempt'] == 1 else 0)")
    job = start(server, worker.kind)
    until(begun.programs, "a program")
    running(server, job)

    begun.process.send_signal(signal.SIGSTOP)
    until(lambda: status(server, job).state == Job.PENDING, "PENDING again")
    begun.process.send_signal(signal.SIGCONT)

    messages = watch(server, job)
    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == "2"
    begun.leaves_nothing()


# Many jobs, one program.


ECHO = """
print("loading", file=sys.stderr, flush=True)
time.sleep(0.3)
for line in sys.stdin:
    job = json.loads(line)
    act = job["input"].get("act")
    if act == "exit": sys.exit(job["input"]["code"])
    if act == "fail": say(failure={"reason": "AS_ASKED", "message": "m", "permanent": True}); continue
    if act == "close": os.close(1); time.sleep(60)
    if act == "sleep": time.sleep(60)
    say(output=str(job["input"].get("n", "")), progress=0.5)
    say(result={"pid": os.getpid(), "n": job["input"].get("n")})
"""


def persistent(worker, server, *flags):
    return worker(server, ECHO, "--persistent", *flags, preamble=LOOP)


def test_one_process_runs_one_job_after_the_other(server, worker):
    begun = persistent(worker, server)

    results = [result(ended(server, start(server, worker.kind, {"n": n}))) for n in range(5)]

    assert [told["n"] for told in results] == [0, 1, 2, 3, 4]
    assert len({told["pid"] for told in results}) == 1 and len(begun.programs()) == 1
    begun.stop()
    begun.leaves_nothing()


def test_a_failure_ends_a_job_and_not_the_program(server, worker):
    persistent(worker, server)

    before = result(ended(server, start(server, worker.kind)))
    failed = ended(server, start(server, worker.kind, {"act": "fail"}))
    after = result(ended(server, start(server, worker.kind)))

    assert (failed.state, failed.failure.reason) == (Job.FAILED, "AS_ASKED")
    assert before["pid"] == after["pid"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [({"act": "exit", "code": 0}, "EXIT_CODE"), ({"act": "exit", "code": 3}, "EXIT_CODE"), ({"act": "close"}, "KILLED")],
)
def test_a_program_that_dies_is_started_anew(server, worker, act, reason):
    persistent(worker, server)

    before = result(ended(server, start(server, worker.kind)))
    failed = ended(server, start(server, worker.kind, act, options=ONCE))
    after = result(ended(server, start(server, worker.kind)))

    assert (failed.state, failed.failure.reason) == (Job.FAILED, reason)
    assert before["pid"] != after["pid"]


def test_a_program_that_dies_between_two_jobs_costs_neither(server, worker):
    begun = persistent(worker, server)
    first = result(ended(server, start(server, worker.kind)))

    os.kill(int(first["pid"]), signal.SIGKILL)
    begun.leaves_nothing()
    job = start(server, worker.kind)
    second = result(ended(server, job))

    assert first["pid"] != second["pid"] and status(server, job).attempt == 1


def test_a_cancelled_job_ends_a_program_that_does_not_listen(server, worker):
    begun = persistent(worker, server)
    job = start(server, worker.kind, {"act": "sleep"})
    running(server, job)
    until(begun.programs, "a program")
    time.sleep(0.5)

    cancel(server, job, grace=5)

    assert ended(server, job).state == Job.CANCELLED
    assert ended(server, start(server, worker.kind)).state == Job.SUCCEEDED


# In the server's own slots.


def test_a_server_runs_the_programs_that_its_settings_name(start_server, tmp_path):
    config = tmp_path / "longhaul.toml"
    config.write_text(
        f"[exec.count]\ncommand = [{json.dumps(sys.executable)}, \"-c\", "
        "'import json, sys; job = json.loads(sys.stdin.readline()); "
        "print(json.dumps({\"result\": len(job[\"input\"][\"text\"].split())}))']\nprocesses_max = 10\n"
        "[exec.shell]\ncommand = [\"sh\", \"-c\", \"echo {job.id} $GIVEN\"]\nprogress = \"none\"\nenv = [\"GIVEN=given\"]\n"
    )
    server = start_server("--config", config)

    assert result(ended(server, start(server, "count", {"text": "to be or not to be"}))) == 6
    job = start(server, "shell")
    messages = watch(server, job)
    assert states(messages)[-1] == "SUCCEEDED" and rendered(messages) == f"{job.id} given\n"


def test_a_program_in_the_server_dies_with_it(start_server, tmp_path):
    mark = f"MARK-{os.getpid()}-{time.monotonic_ns()}"
    config = tmp_path / "longhaul.toml"
    config.write_text(f'[exec.sleep]\ncommand = ["sleep", "60"]\nenv = ["MARK={mark}"]\n')
    server = start_server("--config", config)
    running(server, start(server, "sleep"))
    finder = object.__new__(programs.Worker)
    finder.mark = mark
    until(finder.programs, "a program")

    server.kill()

    finder.leaves_nothing()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "k", "--", "no-such-command"], 'there is no command "no-such-command"'),
        (["--kind", "K", "--", "true"], "kind has 'K'"),
        (["--kind", "k", "--slots", "0", "--", "true"], "--slots is 0"),
        (["--kind", "k", "--persistent", "--", "echo", "{input.a}"], "persistent"),
        (["--kind", "k"], "COMMAND"),
        (["--", "true"], "--kind"),
    ],
)
def test_a_slip_is_told_at_once(arguments, says):
    done = subprocess.run([BINARY, "worker", *arguments], capture_output=True, text=True, timeout=WAIT)

    assert done.returncode == 2 and says in done.stderr, done.stderr
