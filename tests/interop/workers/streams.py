"""The Python worker by the streams: `Work` for everything but output, `Emit` for that."""

import queue
import threading
import time

import grpc
from longhaul.v1.job_pb2 import Job
from longhaul.v1.worker_service_pb2 import AppendOutputRequest, FailJobRequest, HeartbeatRequest, Report, WorkRequest
from steps import PAUSE, Worker, tell

FRAME_BYTES = 65_536
"""How much goes into a frame, of the 256 KiB that it may have."""


class StreamForm(Worker):
    """A worker with one of each stream, which it opens again whenever they end."""

    def serve(self):
        self.emission = None
        threading.Thread(target=self.emit, daemon=True).start()
        while self.leases or not self.draining:
            self.outbox, self.received, self.unanswered = queue.SimpleQueue(), 0, 0
            self.work = self.stub.Work(self.requests(self.outbox))
            try:
                for message in self.work:
                    self.unanswered = 0
                    self.receive(message)
                tell("broken", stream="Work", code="OK")
            except grpc.RpcError as error:
                tell("broken", stream="Work", code=error.code().name)
            if self.leases or not self.draining:
                time.sleep(PAUSE)

    def requests(self, outbox):
        with self.changed:
            tokens = [lease.token for lease in self.leases.values() if not lease.is_silent]
            reports = [lease.report for lease in self.leases.values() if lease.report]
        hello = {"worker_id": self.options.name, "kinds": [self.options.kind], "lease_tokens": tokens}
        yield WorkRequest(hello=WorkRequest.Hello(**hello))
        yield from reports
        self.offer()
        beat = time.monotonic() + self.interval
        while True:
            try:
                message = outbox.get(timeout=max(0, beat - time.monotonic()))
                if message is None:
                    return
                yield message
            except queue.Empty:
                if self.unanswered:
                    return self.leave_connection()
                self.unanswered += 1
                beat = time.monotonic() + self.interval
                with self.changed:
                    tokens = [lease.token for lease in self.leases.values() if not lease.is_silent]
                yield WorkRequest(heartbeat=HeartbeatRequest(reports=[Report(lease_token=token) for token in tokens]))

    def leave_connection(self):
        """A heartbeat had no answer when the next was due."""
        self.reconnect()
        for stream in filter(None, (self.work, self.emission)):
            stream.cancel()

    def say(self, **message):
        self.outbox.put(WorkRequest(**message))

    def offer(self):
        if not self.draining:
            free = self.options.slots - len(self.leases)
            self.say(credit=WorkRequest.Credit(free_slots=free, received=self.received))
        elif self.leases:
            self.say(drain=WorkRequest.Drain())
        else:
            self.outbox.put(None)

    def receive(self, message):
        kind = message.WhichOneof("message")
        if kind == "welcome":
            self.interval = message.welcome.terms.heartbeat_interval.ToTimedelta().total_seconds()
            kept = {d.lease_token: self.obey(d) for d in message.welcome.directives}
            tell("welcome", kept={self.leases[t].job: action for t, action in kept.items() if t in self.leases})
        elif kind == "assignment":
            self.received += 1
            lease = self.take(message.assignment)
            self.say(accept=WorkRequest.Accept(lease_token=lease.token))
        elif kind == "directives":
            for directive in message.directives.directives:
                self.obey(directive)
        elif kind == "ack":
            self.acknowledged(message.ack)
        else:
            tell(kind)

    def obey(self, directive):
        lease = self.leases.get(directive.lease_token)
        return lease.obey(directive) if lease else None

    def acknowledged(self, ack):
        if not (lease := self.leases.get(ack.lease_token)):
            state = Job.State.Name(ack.state)
            return tell("repeated", job=self.jobs.get(ack.lease_token), reason=ack.refusal, state=state)
        what = lease.report.WhichOneof("message")
        if ack.refusal:
            tell("refused", job=lease.job, what=what, reason=ack.refusal)
        else:
            tell("reported", job=lease.job, what=what, state=Job.State.Name(ack.state))
        if ack.refusal == "JOB_CANCELLED":
            return self.end(lease, "fail", FailJobRequest(lease_token=lease.token))
        if ack.refusal == "OUTPUT_MISSING" and not lease.refusal:
            return self.outbox.put(lease.report)
        self.drop(lease)
        self.offer()

    def report(self, lease, report):
        self.say(heartbeat=HeartbeatRequest(reports=[report]))

    def append(self, lease, data=b"", channel="", log=None, checkpoint=None):
        with self.changed:
            lease.output[channel] += data
            lease.logs += [log] if log else []
            lease.checkpoint = checkpoint or lease.checkpoint
            self.changed.notify_all()

    def end(self, lease, what, request, twice=False):
        if what == "complete":
            # The server waits for the output, but not for the log.
            with self.changed:
                self.changed.wait_for(
                    lambda: lease.durable_logs == len(lease.logs) or lease.refusal or lease.stopped.is_set()
                )
        else:
            self.flush(lease)
        lease.report = WorkRequest(**{what: request})
        for _ in range(1 + twice):
            self.outbox.put(lease.report)

    def emit(self):
        while True:
            try:
                self.emission = self.emitter.Emit(self.frames())
                for answer in self.emission:
                    self.emitted(answer)
                tell("broken", stream="Emit", code="OK")
            except grpc.RpcError as error:
                tell("broken", stream="Emit", code=error.code().name)
            time.sleep(PAUSE)

    def emitted(self, answer):
        if answer.refusal:
            tell("refused", job=self.jobs.get(answer.lease_token), what="append", reason=answer.refusal)
        with self.changed:
            if lease := self.leases.get(answer.lease_token):
                if answer.refusal:
                    lease.refusal = answer.refusal
                else:
                    lease.durable[answer.channel] = answer.durable_bytes
                    lease.durable_logs = answer.durable_logs
                    lease.durable_checkpoints = answer.durable_checkpoints
                self.changed.notify_all()

    def frames(self):
        """One stream's frames: from where the server has each output, what this stream has not carried yet."""
        carried = {}
        while True:
            with self.changed:
                frames = [frame for lease in self.leases.values() for frame in self.unsent(lease, carried)]
                if not frames:
                    self.changed.wait()
            yield from frames

    def unsent(self, lease, carried):
        logs_at = carried.get(lease.token, lease.durable_logs)
        for channel in ["", *filter(None, lease.output)]:
            at = carried.get((lease.token, channel), lease.durable[channel])
            data, logs = bytes(lease.output[channel][at : at + FRAME_BYTES]), [] if channel else lease.logs[logs_at:]
            carried[lease.token, channel] = at + len(data)
            carried[lease.token] = logs_at = logs_at + len(logs)
            # The main output goes first, and a checkpoint with it.
            recorded = carried.get((lease.token, "checkpoint"), lease.durable_checkpoints)
            is_whole = carried[lease.token, ""] == len(lease.output[""])
            checkpoint = lease.checkpoint if lease.checkpoint.number > recorded and is_whole else None
            if checkpoint:
                carried[lease.token, "checkpoint"] = checkpoint.number
            if data or logs or checkpoint:
                where = {"channel": channel, "offset": at, "log_offset": logs_at - len(logs), "checkpoint": checkpoint}
                yield AppendOutputRequest(lease_token=lease.token, data=data, logs=logs, **where)
