"""A worker for longhaul: counts the words of a text, line by line.

Jobs come over the stream `Work`, which may break at any time and is then opened again. Nothing is lost by that: leases
go on, and what the server has not acknowledged is said again. What a job writes goes its own way: see job.py.
"""

import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection

import grpc
import heartbeats
from job import TRY_AGAIN, Job
from longhaul.v1.worker_service_pb2 import Directive, HeartbeatRequest, WorkRequest, WorkResponse
from longhaul.v1.worker_service_pb2_grpc import WorkerServiceStub

SERVER = os.environ.get("LONGHAUL_SERVER", "127.0.0.1:3000")
NAME = f"{os.uname().nodename}-{os.getpid()}"
SLOTS = 4


def count_words(job: Job) -> dict:
    """The work itself. What it returns is the job's result; what it raises makes the attempt fail."""
    lines, words = job.input["text"].splitlines(), 0
    job.write(log=f"{len(lines)} lines to count")
    for number, line in enumerate(lines, 1):
        job.sleep(0.2)  # Stands for a model that takes its time.
        words += len(line.split())
        job.write(f"{len(line.split()):4}  {line}\n")
        job.progress(number / len(lines), "Counting")
    return {"lines": len(lines), "words": words}


class Worker:
    """The stream `Work`, and the jobs that came over it."""

    def __init__(self, heart: Connection):
        self.heart = heart
        self.jobs: dict[str, Job] = {}
        self.outbox: queue.SimpleQueue[WorkRequest | None] = queue.SimpleQueue()
        self.interval, self.received, self.unanswered, self.draining = 1.0, 0, 0, False

    def serve(self) -> None:
        """Keeps a stream open until a drain is over. Each has a connection of its own, with what the jobs write."""
        threading.Thread(target=self.beat, daemon=True).start()
        while self.jobs or not self.draining:
            self.outbox, self.received, self.unanswered = queue.SimpleQueue(), 0, 0
            with grpc.insecure_channel(SERVER, heartbeats.NEW_CONNECTION) as channel:
                self.stub = WorkerServiceStub(channel)
                self.stream = self.stub.Work(self.requests(self.outbox))
                try:
                    for message in self.stream:
                        self.unanswered = 0
                        self.receive(message)
                except grpc.RpcError as error:
                    print(f"The stream broke ({error.code().name}), so there will be a new one")
                    time.sleep(1)
            self.outbox.put(None)

    def requests(self, outbox: queue.SimpleQueue):
        """What is said on one stream: who we are, what we hold, what was not acknowledged, and then what comes up."""
        yield WorkRequest(hello=WorkRequest.Hello(worker_id=NAME, kinds=["count-words"], lease_tokens=list(self.jobs)))
        yield from [job.report for job in list(self.jobs.values()) if job.report]
        self.offer()
        yield from iter(outbox.get, None)

    def beat(self) -> None:
        """Sends heartbeats, also when idle. Each is answered; if one was not when the next is due, nobody hears us."""
        while True:
            time.sleep(self.interval)
            if self.unanswered:
                self.stream.cancel()
            self.unanswered += 1
            self.say(heartbeat=HeartbeatRequest())

    def say(self, **message) -> None:
        self.outbox.put(WorkRequest(**message))

    def offer(self) -> None:
        """Says how many jobs we can take now, or that we are going to leave."""
        if not self.draining:
            self.say(credit=WorkRequest.Credit(free_slots=SLOTS - len(self.jobs), received=self.received))
        elif self.jobs:
            self.say(drain=WorkRequest.Drain())
        else:
            self.outbox.put(None)

    def receive(self, message: WorkResponse) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self.interval = message.welcome.terms.heartbeat_interval.ToTimedelta().total_seconds()
                self.obey(message.welcome.directives)
            case "directives":
                self.obey(message.directives.directives)
            case "assignment":
                self.received += 1
                job = Job(message.assignment, self)
                self.jobs[job.token] = job
                self.say(accept=WorkRequest.Accept(lease_token=job.token))
                threading.Thread(target=job.run, args=[count_words], daemon=True).start()
            case "ack":
                if job := self.jobs.get(message.ack.lease_token):
                    self.acknowledged(job, message.ack)
        self.heart.send((self.interval, list(self.jobs)))

    def obey(self, directives: list[Directive]) -> None:
        for directive in directives:
            if directive.action != Directive.RENEWED and (job := self.jobs.get(directive.lease_token)):
                job.stopped.set()

    def acknowledged(self, job: Job, ack: WorkResponse.Ack) -> None:
        if ack.refusal == "JOB_CANCELLED":
            job.has_stopped()  # The cancel came before our success.
        elif ack.refusal in TRY_AGAIN:
            threading.Timer(1, self.outbox.put, [job.report]).start()
        elif ack.refusal not in ("", "LEASE_LOST") and job.report.HasField("complete"):
            job.fail(ack.refusal, ack.message)
        else:
            print(f"{job.id}: {ack.message or 'reported'}")
            job.close()
            del self.jobs[job.token]
            self.offer()

    def drain(self, *_) -> None:
        self.draining = True
        self.offer()


if __name__ == "__main__":
    # First of all: a process is best started while this one has neither threads nor a channel.
    with heartbeats.start(SERVER) as heart:
        worker = Worker(heart)
        signal.signal(signal.SIGTERM, worker.drain)
        signal.signal(signal.SIGINT, worker.drain)
        worker.serve()
