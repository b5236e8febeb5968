"""What becomes of the examples' jobs where the server goes away, a connection leads nowhere, a lease is lost, a report is
refused, or a worker crashes.
"""

import concurrent.futures
import contextlib
import os
import signal
import threading

import foreign
import grpc
import pytest
from client import Job, history, rendered, states, status, watch
from conftest import WAIT, until
from longhaul.v1 import worker_service_pb2 as proto
from longhaul.v1.worker_service_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server
from test_examples import WORKERS, begun, counting, group, ready, run  # noqa: F401  (two are fixtures)

STREAMS = ["python", "typescript"]
"""Workers that use the streams; the one in shell has a connection for each call, and a lease of a minute."""
LINES = 8 * ["again and again"]
LONG = 100_000 * "so "
"""More than fits in a frame."""


def counts(lines):
    """What a worker writes about a text."""
    return "".join(f"{len(line.split()):4}  {line}\n" for line in lines)


@pytest.mark.parametrize("language", WORKERS)
def test_it_goes_on_where_its_server_was_away(start_server, ready, run, language):  # noqa: F811
    ready(language)
    server = start_server()
    proxy = foreign.Proxy(server.address)
    worker = run(language, WORKERS[language], proxy.address)
    lines = LINES[:5] if language == "shell" else [*LINES[:3], LONG, *LINES]
    job = counting(server, "\n".join(lines))
    begun(server, job)

    server.kill()
    failed = "Failed to dial" if language == "shell" else "there will be a new one"
    until(lambda: failed in worker.printed(), "a report that failed")
    server.start()
    proxy.lead_to(server.address)
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and status(server, job).attempt == 1
    assert rendered(messages) == counts(lines)
    proxy.close()


@pytest.mark.parametrize("language", STREAMS)
def test_it_leaves_a_connection_that_leads_nowhere(start_server, ready, run, language):  # noqa: F811
    ready(language)
    server = start_server("--heartbeat-interval", "0.5s", "--accept-timeout", "1s")
    proxy = foreign.Proxy(server.address)
    run(language, WORKERS[language], proxy.address)
    job = counting(server, "\n".join(LINES))
    begun(server, job)

    proxy.swallow()
    later = counting(server, "once more")
    messages = watch(server, job)

    assert states(messages) == ["PENDING", "RUNNING", "SUCCEEDED"] and rendered(messages) == counts(LINES)
    assert states(watch(server, later)) == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert status(server, job).attempt == status(server, later).attempt == 1
    proxy.close()


@pytest.mark.parametrize("language", STREAMS)
def test_it_lets_go_of_a_job_whose_lease_it_lost(start_server, ready, run, language):  # noqa: F811
    ready(language)
    server = start_server("--lease-duration", "2s")
    worker = run(language, WORKERS[language], server.address)
    job = counting(server, "\n".join(LINES))
    begun(server, job)

    os.killpg(worker.pid, signal.SIGSTOP)
    until(lambda: status(server, job).state != Job.RUNNING, "the end of the lease")
    os.killpg(worker.pid, signal.SIGCONT)
    until(lambda: job.id in worker.printed(), "the end of the first attempt's work")
    meanwhile = rendered(history(server, job))
    messages = watch(server, job)

    assert meanwhile.count("\n") < len(LINES) / 2, "it worked on without a lease"
    assert states(messages) == ["PENDING", "RUNNING", "PENDING", "RUNNING", "SUCCEEDED"]
    assert rendered(messages) == counts(LINES) and status(server, job).attempt == 2


CRASHING = """
import runpy, signal
def crash(*_):
    raise ValueError("as it was told")
signal.signal(signal.SIGUSR1, crash)
runpy.run_path("worker.py", run_name="__main__")
"""


def test_a_worker_whose_main_thread_crashes_is_gone_with_all_of_it(start_server, ready, run):  # noqa: F811
    ready("python")
    server = start_server("--lease-duration", "2s")
    worker = run("python", ["python", "-c", CRASHING], server.address)
    job = counting(server, 100 * "again and again\n")
    begun(server, job)

    os.kill(worker.pid, signal.SIGUSR1)

    assert worker.wait(WAIT) == 1 and "as it was told" in worker.printed()
    until(lambda: not group(worker), "the end of the heartbeats")
    until(lambda: status(server, job).state == Job.PENDING, "the end of the lease")


class Grumpy(WorkerServiceServicer):
    """A server with one job, which refuses the first frame and the first report."""

    def __init__(self, refusal):
        self.refusal, self.refused = refusal, False
        self.output, self.logs, self.reports = b"", [], []
        self.over = threading.Event()

    def Heartbeat(self, request, context):
        return self.renew(request)

    @staticmethod
    def renew(request):
        renewed = [proto.Directive(lease_token=report.lease_token, action="RENEWED") for report in request.reports]
        return proto.HeartbeatResponse(directives=renewed)

    def Work(self, messages, context):
        hello = next(messages).hello
        terms = proto.LeaseTerms(heartbeat_interval={"seconds": 1})
        yield proto.WorkResponse(welcome=proto.WorkResponse.Welcome(terms=terms))
        if not hello.lease_tokens:
            assignment = proto.Assignment(job={"id": "job"}, lease_token="lease", input_json='{"text": "to be"}')
            yield proto.WorkResponse(assignment=assignment)
        for message in messages:
            what = message.WhichOneof("message")
            if what == "heartbeat":
                yield proto.WorkResponse(directives=self.renew(message.heartbeat))
            elif what in ("complete", "fail"):
                self.reports.append(message)
                refusal = "OUTCOME_UNKNOWN" if len(self.reports) == 1 else ""
                yield proto.WorkResponse(ack=proto.WorkResponse.Ack(lease_token="lease", refusal=refusal))
            elif self.reports and what == "credit":
                self.over.set()

    def Emit(self, frames, context):
        for frame in frames:
            refusal = ""
            if not self.refused:
                self.refused, refusal = True, self.refusal
            elif frame.offset > len(self.output) or frame.log_offset > len(self.logs):
                refusal = "OUTPUT_GAP"
            else:
                self.output = self.output[: frame.offset] + frame.data
                self.logs = self.logs[: frame.log_offset] + [line.message for line in frame.logs]
            yield proto.AppendOutputResponse(
                lease_token="lease", durable_bytes=len(self.output), durable_logs=len(self.logs), refusal=refusal
            )


@contextlib.contextmanager
def served(service):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        add_WorkerServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@pytest.mark.parametrize("language", STREAMS)
def test_what_was_refused_for_a_moment_is_said_again(ready, run, language):  # noqa: F811
    ready(language)
    server = Grumpy("UNAVAILABLE")
    with served(server) as address:
        run(language, WORKERS[language], address)
        assert server.over.wait(WAIT)

    assert [report.WhichOneof("message") for report in server.reports] == ["complete", "complete"]
    assert server.output.decode() == counts(["to be"]) and server.logs == ["1 lines to count"]


@pytest.mark.parametrize("language", STREAMS)
def test_output_that_is_refused_for_good_fails_the_attempt(ready, run, language):  # noqa: F811
    ready(language)
    server = Grumpy("OUTPUT_LIMIT")
    with served(server) as address:
        run(language, WORKERS[language], address)
        assert server.over.wait(WAIT)

    failures = [report.fail.failure for report in server.reports]
    assert [(failure.reason, failure.permanent) for failure in failures] == 2 * [("OUTPUT_LIMIT", True)]
