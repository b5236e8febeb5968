/* A worker for longhaul: counts the words of a text, line by line.
 *
 * Jobs come over the stream `Work`; what a job writes goes over a stream `Emit`. Either may break at any time and is then
 * opened again. Nothing is lost by that: leases go on, and what the server has not confirmed is sent again.
 *
 * Heartbeats come from the event loop, so work that would block it belongs into a worker thread.
 */

import { hostname } from "node:os";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { LogLine_Level } from "./generated/longhaul/v1/job_pb.js";
import {
  type Assignment, type Directive, Directive_Action, type WorkRequestSchema, type WorkResponse, WorkerService,
} from "./generated/longhaul/v1/worker_service_pb.js";

const SERVER = process.env.LONGHAUL_SERVER ?? "127.0.0.1:3000";
const KINDS = ["count-words"];
const SLOTS = 4;

const service = createClient(WorkerService, createGrpcTransport({ baseUrl: `http://${SERVER}` }));

/** The work itself. What it returns is the job's result; what it throws makes the attempt fail. */
async function countWords(job: Job) {
  const lines = job.input.text.trimEnd().split("\n");
  let words = 0;
  await job.log(`${lines.length} lines to count`);
  for (const [index, line] of lines.entries()) {
    // Stands for a model that takes its time. The signal is how the server stops the work.
    await sleep(200, undefined, { signal: job.stop.signal });
    const count = line.split(/\s+/).filter(Boolean).length;
    words += count;
    job.write(`${String(count).padStart(4)}  ${line}\n`);
    job.progress((index + 1) / lines.length, "Counting");
  }
  return { lines: lines.length, words };
}

type Message = MessageInitShape<typeof WorkRequestSchema>["message"];

/** A queue that a stream of requests is made of. */
const mailbox = () => new Readable({ objectMode: true, read() {} });

/** A job that this worker holds. */
class Job {
  readonly id: string;
  readonly token: string;
  readonly input: { text: string };
  readonly stop = new AbortController();
  /** How the work ended, until the server has confirmed that. */
  report: Message;

  private output = Buffer.alloc(0);
  private durableBytes = 0;
  private logged = 0;
  private frames = mailbox();

  constructor(assignment: Assignment) {
    this.id = assignment.job!.id;
    this.token = assignment.leaseToken;
    this.input = JSON.parse(assignment.inputJson);
  }

  async run() {
    void this.emit();
    const leaseToken = this.token;
    try {
      const resultJson = JSON.stringify(await countWords(this));
      // The count lets the server wait for output that is still on its way.
      const outputBytes = BigInt(this.output.length);
      this.end({ case: "complete", value: { leaseToken, outcome: { case: "resultJson", value: resultJson }, outputBytes } });
    } catch (error) {
      // Without a failure it says that the work was stopped, as the server asked.
      const failure = this.stop.signal.aborted ? undefined : { reason: "HANDLER_ERROR", message: String(error) };
      this.end({ case: "fail", value: { leaseToken, failure } });
    }
  }

  end(report: Message) {
    this.report = report;
    say(report);
  }

  progress(fraction: number, stage: string) {
    say({ case: "heartbeat", value: { reports: [{ leaseToken: this.token, progress: { fraction, stage } }] } });
  }

  async log(message: string) {
    const logs = [{ level: LogLine_Level.INFO, message }];
    await service.appendOutput({ leaseToken: this.token, logs, logOffset: BigInt(this.logged++) });
  }

  write(text: string) {
    const offset = this.output.length;
    this.output = Buffer.concat([this.output, Buffer.from(text)]);
    this.send(offset);
  }

  private send(offset: number) {
    const data = this.output.subarray(offset);
    this.frames.push({ leaseToken: this.token, offset: BigInt(offset), data });
  }

  /** Carries the output, over as many streams as it takes. A new one begins where the server has it. */
  private async emit() {
    while (jobs.has(this.token)) {
      this.frames = mailbox();
      if (this.durableBytes < this.output.length) this.send(this.durableBytes);
      try {
        for await (const answer of service.emit(this.frames)) {
          if (answer.refusal) this.stop.abort();
          else this.durableBytes = Number(answer.durableBytes);
        }
      } catch {
        await sleep(1000);
      }
    }
  }

  close() {
    jobs.delete(this.token);
    this.frames.push(null);
  }
}

const jobs = new Map<string, Job>();
let outbox = mailbox();
let received = 0;
let draining = false;

function say(message: Message) {
  outbox.push({ message });
}

/** Says how many jobs we can take now, or that we are leaving. */
function offer() {
  if (!draining) {
    say({ case: "credit", value: { freeSlots: SLOTS - jobs.size, received: BigInt(received) } });
  } else if (jobs.size > 0) {
    say({ case: "drain", value: {} });
  } else {
    outbox.push(null);
  }
}

function obey(directives: Directive[]) {
  for (const { leaseToken, action } of directives) {
    if (action !== Directive_Action.RENEWED) jobs.get(leaseToken)?.stop.abort();
  }
}

function receive(message: WorkResponse["message"]) {
  if (message.case === "directives") {
    obey(message.value.directives);
  } else if (message.case === "assignment") {
    received += 1;
    const job = new Job(message.value);
    jobs.set(job.token, job);
    say({ case: "accept", value: { leaseToken: job.token } });
    void job.run();
  } else if (message.case === "ack") {
    const job = jobs.get(message.value.leaseToken);
    if (!job) return;
    if (message.value.refusal === "JOB_CANCELLED") {
      // The cancel came before our success. All that is left to say is that we have stopped.
      job.end({ case: "fail", value: { leaseToken: job.token } });
    } else if (message.value.refusal === "OUTPUT_MISSING" && !job.stop.signal.aborted) {
      say(job.report);
    } else {
      console.log(`${job.id}: ${message.value.refusal || "reported"}`);
      job.close();
      offer();
    }
  }
}

/** Keeps a stream open until a drain is over. */
async function serve() {
  while (jobs.size > 0 || !draining) {
    outbox = mailbox();
    received = 0;
    let heartbeats: NodeJS.Timeout | undefined;
    // Who we are, what we hold, what was not confirmed, and what we can take.
    const workerId = `${hostname()}-${process.pid}`;
    say({ case: "hello", value: { workerId, kinds: KINDS, leaseTokens: [...jobs.keys()] } });
    for (const job of jobs.values()) if (job.report) say(job.report);
    offer();
    try {
      for await (const { message } of service.work(outbox)) {
        if (message.case === "welcome") {
          obey(message.value.directives);
          const beat = () => say({ case: "heartbeat", value: { reports: [...jobs.keys()].map((leaseToken) => ({ leaseToken })) } });
          heartbeats = setInterval(beat, durationMs(message.value.terms!.heartbeatInterval!));
        } else {
          receive(message);
        }
      }
    } catch (error) {
      console.log(`The stream broke, so there will be a new one: ${error}`);
      await sleep(1000);
    } finally {
      clearInterval(heartbeats);
    }
  }
}

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    draining = true;
    offer();
  });
}
await serve();
process.exit();
