"""A job in the hands of a worker: what the work is done with, and the stream `Emit` that carries what it writes."""

import json
import threading
import time
import traceback
from collections.abc import Callable

import grpc
from longhaul.v1.job_pb2 import Failure, LogLine, Progress
from longhaul.v1.worker_service_pb2 import (
    AppendOutputRequest, Assignment, CompleteJobRequest, FailJobRequest, HeartbeatRequest, Report, WorkRequest,
)

FRAME_BYTES_MAX = 256 * 1024
FRAME_LINES_MAX = 100
TRY_AGAIN = {"UNAVAILABLE", "OUTCOME_UNKNOWN", "OUTPUT_GAP", "LOG_GAP"}
"""Refusals that say nothing against a report; a gap follows a frame that was refused so."""


class Stopped(Exception):
    """The server wants the job to stop."""


class Job:
    """All that a job writes is kept here until it is over, to be sent again where a stream breaks."""

    def __init__(self, assignment: Assignment, worker):
        self.id, self.token = assignment.job.id, assignment.lease_token
        self.input = json.loads(assignment.input_json)
        self.worker = worker
        self.output, self.logs = bytearray(), []
        self.durable = (0, 0)  # So many bytes and lines the server has for certain.
        self.changed = threading.Condition()
        self.stopped, self.is_over = threading.Event(), False
        self.refusal = ""  # Why the server takes no more output.
        self.report: WorkRequest | None = None  # How the work ended, to be said until it is acknowledged.

    def run(self, work: Callable[["Job"], dict]) -> None:
        """Does the work, and says how it ended."""
        threading.Thread(target=self.emit, daemon=True).start()
        try:
            result = json.dumps(work(self))
            self.flush()
            self.end(complete=CompleteJobRequest(lease_token=self.token, result_json=result))
        except Stopped:
            self.fail(self.refusal, "the output was refused") if self.refusal else self.has_stopped()
        except Exception as error:
            traceback.print_exc()
            self.fail("HANDLER_ERROR", repr(error))

    def sleep(self, seconds: float) -> None:
        """Waits. Work that never waits should look at `stopped` now and then."""
        if self.stopped.wait(seconds):
            raise Stopped

    def progress(self, fraction: float, stage: str) -> None:
        report = Report(lease_token=self.token, progress=Progress(fraction=fraction, stage=stage))
        self.worker.say(heartbeat=HeartbeatRequest(reports=[report]))

    def write(self, text: str = "", log: str = "") -> None:
        """Appends to the job's output, to its log, or to both."""
        with self.changed:
            self.output += text.encode()
            self.logs += [LogLine(level=LogLine.INFO, message=log)] if log else []
            self.changed.notify_all()

    def flush(self) -> None:
        """Waits until all that was written is durable."""
        while self.durable != (len(self.output), len(self.logs)):
            self.sleep(0.01)

    def has_stopped(self) -> None:
        self.end(fail=FailJobRequest(lease_token=self.token))

    def fail(self, reason: str, message: str) -> None:
        permanent = reason != "HANDLER_ERROR"  # What the server will not have is no better the next time.
        failure = Failure(reason=reason, message=message[:1000], permanent=permanent)
        self.end(fail=FailJobRequest(lease_token=self.token, failure=failure))

    def end(self, **report) -> None:
        self.report = WorkRequest(**report)
        self.worker.say(**report)

    def close(self) -> None:
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def emit(self) -> None:
        """Keeps a stream open. A new one begins with what the server does not have for certain."""
        while not self.is_over:
            try:
                answers = self.worker.stub.Emit(self.frames(*self.durable))
                for answer in answers:
                    if not answer.refusal:
                        self.durable = (answer.durable_bytes, answer.durable_logs)
                    elif answer.refusal in TRY_AGAIN:
                        answers.cancel()
                    else:
                        self.refusal = answer.refusal
                        self.stopped.set()
            except (grpc.RpcError, ValueError):  # The latter where the channel has just been closed.
                time.sleep(1)

    def frames(self, at: int, log_at: int):
        """From this byte and log line on, whatever is new."""
        while not self.is_over:
            data = bytes(self.output[at:at + FRAME_BYTES_MAX])
            logs = self.logs[log_at:log_at + FRAME_LINES_MAX]
            if data or logs:
                yield AppendOutputRequest(lease_token=self.token, offset=at, data=data, log_offset=log_at, logs=logs)
                at, log_at = at + len(data), log_at + len(logs)
            else:
                with self.changed:
                    self.changed.wait_for(lambda: self.is_over or at < len(self.output) or log_at < len(self.logs))
