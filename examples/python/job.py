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
from longhaul.v1.worker_service_pb2_grpc import WorkerServiceStub

FRAME_BYTES_MAX = 256 * 1024


class Stopped(Exception):
    """The server wants the job to stop."""


class Job:
    """All that a job writes is kept here until it is over, to be sent again where a stream breaks."""

    def __init__(self, assignment: Assignment, stub: WorkerServiceStub, say: Callable[..., None]):
        self.id, self.token = assignment.job.id, assignment.lease_token
        self.input = json.loads(assignment.input_json)
        self.stub, self.say = stub, say
        self.output, self.logs = bytearray(), []
        self.durable = (0, 0)  # So many bytes and lines the server has for certain.
        self.changed = threading.Condition()
        self.stopped, self.is_over = threading.Event(), False
        self.report: WorkRequest | None = None  # How the work ended, to be said until it is acknowledged.

    def run(self, work: Callable[["Job"], dict]) -> None:
        """Does the work, and says how it ended."""
        threading.Thread(target=self.emit, daemon=True).start()
        try:
            result = json.dumps(work(self))
            self.flush()
            self.end(complete=CompleteJobRequest(lease_token=self.token, result_json=result))
        except Stopped:
            self.end()
        except Exception as error:
            traceback.print_exc()
            failure = Failure(reason="HANDLER_ERROR", message=repr(error)[:1000])
            self.end(fail=FailJobRequest(lease_token=self.token, failure=failure))

    def sleep(self, seconds: float) -> None:
        """Waits. Work that never waits should look at `stopped` now and then."""
        if self.stopped.wait(seconds):
            raise Stopped

    def progress(self, fraction: float, stage: str) -> None:
        report = Report(lease_token=self.token, progress=Progress(fraction=fraction, stage=stage))
        self.say(heartbeat=HeartbeatRequest(reports=[report]))

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

    def end(self, **report) -> None:
        """Without a report it says that the work has stopped, as the server wanted."""
        report = report or {"fail": FailJobRequest(lease_token=self.token)}
        self.report = WorkRequest(**report)
        self.say(**report)

    def close(self) -> None:
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def emit(self) -> None:
        """Keeps a stream open. A new one begins with what the server does not have for certain."""
        while not self.is_over:
            try:
                for answer in self.stub.Emit(self.frames(*self.durable)):
                    if answer.refusal:
                        self.stopped.set()
                    self.durable = (answer.durable_bytes, answer.durable_logs)
            except grpc.RpcError:
                time.sleep(1)

    def frames(self, at: int, log_at: int):
        """From this byte and log line on, whatever is new."""
        while not self.is_over:
            data, logs = bytes(self.output[at:at + FRAME_BYTES_MAX]), self.logs[log_at:]
            if data or logs:
                yield AppendOutputRequest(lease_token=self.token, offset=at, data=data, log_offset=log_at, logs=logs)
                at, log_at = at + len(data), log_at + len(logs)
            else:
                with self.changed:
                    self.changed.wait_for(lambda: self.is_over or at < len(self.output) or log_at < len(self.logs))
