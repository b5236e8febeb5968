"""What both forms of the Python worker share: what is told, a lease, and the steps of a job."""

import collections
import json
import os
import pathlib
import threading
import time

import grpc
from longhaul.v1.job_pb2 import Failure, LogLine, Progress
from longhaul.v1.worker_service_pb2 import (
    Checkpoint, CompleteJobRequest, Directive, FailJobRequest, ReleaseJobRequest, Report,
)
from longhaul.v1.worker_service_pb2_grpc import WorkerServiceStub

PAUSE = 0.2
"""Seconds before the next try after a break."""
PRINTING = threading.Lock()


def tell(event, **fields):
    with PRINTING:
        print(json.dumps({"event": event, **fields}), flush=True)


class Stopped(Exception):
    """The server wants the job to stop."""


class Lease:
    """A job that this worker holds, what it wrote, and how much of that is durable."""

    def __init__(self, assignment):
        self.token, self.job = assignment.lease_token, assignment.job.id
        self.attempt = assignment.job.attempt + 1
        self.input = json.loads(assignment.input_json)
        self.output = collections.defaultdict(bytearray)
        self.durable = collections.defaultdict(int)
        # What an earlier attempt has left of the main output counts, whatever it says.
        self.output[""] += bytes(assignment.output_offset)
        self.durable[""] = assignment.output_offset
        self.checkpoint, self.durable_checkpoints = Checkpoint(), 0
        self.logs, self.durable_logs = [], 0
        self.stopped = threading.Event()
        self.is_silent = False
        self.refusal = None
        self.report = None
        trace = {"traceparent": assignment.traceparent, "tracestate": assignment.tracestate}
        deadline = assignment.HasField("attempt_deadline")
        base = {"checkpoint": assignment.checkpoint.decode(), "output_offset": assignment.output_offset}
        tell(
            "assigned", job=self.job, attempt=self.attempt, kind=assignment.job.kind, has_deadline=deadline, **trace, **base,
        )

    def is_durable(self):
        lengths = {channel: len(data) for channel, data in self.output.items()}
        counts = (self.durable_logs, self.durable_checkpoints)
        return counts == (len(self.logs), self.checkpoint.number) and all(self.durable[c] == n for c, n in lengths.items())

    def obey(self, directive):
        action = Directive.Action.Name(directive.action)
        if action != "RENEWED" and not self.stopped.is_set():
            tell(action.lower(), job=self.job, grace=directive.grace.ToTimedelta().total_seconds())
            self.stopped.set()
        return action

    def progress(self, **fields):
        return Report(lease_token=self.token, progress=Progress(**fields))


class Worker:
    """What both forms share: slots, steps and the way to an end."""

    def __init__(self, options):
        self.options = options
        self.reconnect()
        self.leases = {}
        self.jobs = {}
        self.changed = threading.Condition(threading.RLock())
        self.draining = False
        self.interval = 1.0

    def reconnect(self):
        """Takes new connections: those that there are may lead nowhere."""
        self.stub = self.connect(self.options.server)
        self.emitter = self.connect(self.options.emit_server or self.options.server)

    @staticmethod
    def connect(address):
        backoff = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)]
        # Otherwise a new channel would share the connection of an old one.
        return WorkerServiceStub(grpc.insecure_channel(address, [*backoff, ("grpc.use_local_subchannel_pool", 1)]))

    def take(self, assignment):
        lease = Lease(assignment)
        with self.changed:
            self.leases[lease.token] = lease
            self.jobs[lease.token] = lease.job
        threading.Thread(target=self.run, args=[lease], daemon=True).start()
        return lease

    def drop(self, lease):
        with self.changed:
            self.leases.pop(lease.token, None)
            self.changed.notify_all()

    def run(self, lease):
        """Does a job's steps, and reports how they ended."""
        token = {"lease_token": lease.token}
        try:
            self.report(lease, Report(**token))
            for step in lease.input["steps"]:
                if step.get("attempt", lease.attempt) != lease.attempt:
                    continue
                if lease.stopped.is_set() and not lease.input.get("stubborn"):
                    raise Stopped
                match step:
                    case {"progress": fraction}:
                        self.report(lease, lease.progress(fraction=fraction, stage=step.get("stage", "")))
                    case {"metrics": metrics}:
                        self.report(lease, Report(**token, metrics=metrics))
                    case {"output": text}:
                        self.append(lease, text.encode() * step.get("times", 1), step.get("channel", ""))
                    case {"log": line}:
                        self.append(lease, log=LogLine(level=LogLine.INFO, message=line))
                    case {"checkpoint": text}:
                        keep = step.get("keep", len(lease.output[""]))
                        number = lease.checkpoint.number + 1
                        checkpoint = Checkpoint(data=text.encode(), output_bytes=keep, number=number)
                        self.append(lease, checkpoint=checkpoint)
                        self.flush(lease)
                        tell("recorded", job=lease.job, number=lease.durable_checkpoints)
                    case {"sleep": seconds}:
                        lease.stopped.wait(seconds)
                    case {"wait_for": file}:
                        self.flush(lease)
                        tell("waiting", job=lease.job, attempt=lease.attempt)
                        while not pathlib.Path(file).exists():
                            if lease.stopped.wait(0.02) and not lease.input.get("stubborn"):
                                raise Stopped
                            time.sleep(0.02)
                    case {"wait_for_cancel": True}:
                        self.flush(lease)
                        tell("waiting", job=lease.job, attempt=lease.attempt)
                        lease.stopped.wait()
                        raise Stopped
                    case {"silent": True}:
                        lease.is_silent = True
                    case {"crash": True}:
                        self.flush(lease)
                        tell("crash", job=lease.job)
                        os._exit(1)
                    case {"fail": reason}:
                        failure = Failure(reason=reason, message="as it was told", permanent="permanent" in step)
                        return self.end(lease, "fail", FailJobRequest(**token, failure=failure), "twice" in step)
                    case {"release": seconds}:
                        request = ReleaseJobRequest(**token, reason="AS_IT_WAS_TOLD")
                        request.delay.FromMilliseconds(int(seconds * 1000))
                        return self.end(lease, "release", request, "twice" in step)
                    case {"result": result}:
                        written = sum(map(len, lease.output.values()))
                        request = CompleteJobRequest(**token, result_json=json.dumps(result), output_bytes=written)
                        return self.end(lease, "complete", request, "twice" in step)
                    case _:
                        raise ValueError(f"there is no such step: {step}")
            raise ValueError("the steps have no end")
        except Stopped:
            self.end(lease, "fail", FailJobRequest(**token))

    def flush(self, lease):
        """Waits until what was written is durable, or will never be."""
        with self.changed:
            self.changed.wait_for(lambda: lease.is_durable() or lease.refusal or lease.stopped.is_set())

    def leave(self, *_):
        """On SIGTERM: takes no more jobs, and ends with the last that it has."""
        self.draining = True
        self.offer()
        tell("draining")
