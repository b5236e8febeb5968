/* A worker for longhaul: counts the words of a text, line by line.
 *
 * Jobs come over the stream `Work`; what a job writes goes over a stream `Emit`. Either may break at any time and is then
 * opened again. Nothing is lost by that: leases go on, and what the server has not confirmed is sent again.
 *
 * Heartbeats come from the event loop, so work that would block it belongs into a worker thread.
 */

import { EventEmitter, once } from "node:events";
import { hostname } from "node:os";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { LogLine_Level } from "./generated/longhaul/v1/job_pb.js";
import {
  type Assignment, type Directive, Directive_Action, type WorkRequestSchema, type WorkResponse, type WorkResponse_Ack,
  WorkerService,
} from "./generated/longhaul/v1/worker_service_pb.js";

const SERVER = process.env.LONGHAUL_SERVER ?? "127.0.0.1:3000";
const KINDS = ["count-words"];
const SLOTS = 4;
const FRAME_BYTES_MAX = 256 * 1024;
const FRAME_LINES_MAX = 100;
/** Refusals that say nothing against a report; a gap follows a frame that was refused so. */
const TRY_AGAIN = ["UNAVAILABLE", "OUTCOME_UNKNOWN", "OUTPUT_GAP", "LOG_GAP"];

const connection = new Http2SessionManager(`http://${SERVER}`);
const transport = createGrpcTransport({ baseUrl: connection.authority, sessionManager: connection });
const service = createClient(WorkerService, transport);

/** The work itself. What it returns is the job's result; what it throws makes the attempt fail. */
async function countWords(job: Job) {
  const lines = job.input.text.trimEnd().split("\n");
  let words = 0;
  job.log(`${lines.length} lines to count`);
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

/** A job that this worker holds. All that it writes is kept until it is over, to be sent again where a stream breaks. */
class Job {
  readonly id: string;
  readonly token: string;
  readonly input: { text: string };
  readonly stop = new AbortController();
  /** How the work ended, until the server has confirmed that. */
  report: Message;

  private output = Buffer.alloc(0);
  private logs: { level: LogLine_Level; message: string }[] = [];
  /** What the server has for certain. */
  private durable = { bytes: 0, logs: 0 };
  private refusal = "";
  private readonly changed = new EventEmitter();

  constructor(assignment: Assignment) {
    this.id = assignment.job!.id;
    this.token = assignment.leaseToken;
    this.input = JSON.parse(assignment.inputJson);
  }

  async run() {
    void this.emit();
    try {
      const resultJson = JSON.stringify(await countWords(this));
      await this.flush();
      this.end({ case: "complete", value: { leaseToken: this.token, outcome: { case: "resultJson", value: resultJson } } });
    } catch (error) {
      if (this.refusal) this.fail(this.refusal, "the output was refused");
      else if (this.stop.signal.aborted) this.hasStopped();
      else this.fail("HANDLER_ERROR", String(error));
    }
  }

  /** Says that the work was stopped, as the server asked. */
  hasStopped() {
    this.end({ case: "fail", value: { leaseToken: this.token } });
  }

  fail(reason: string, message: string) {
    // What the server will not have is no better the next time.
    const failure = { reason, message: message.slice(0, 1000), permanent: reason !== "HANDLER_ERROR" };
    this.end({ case: "fail", value: { leaseToken: this.token, failure } });
  }

  private end(report: Message) {
    this.report = report;
    say(report);
  }

  progress(fraction: number, stage: string) {
    say({ case: "heartbeat", value: { reports: [{ leaseToken: this.token, progress: { fraction, stage } }] } });
  }

  log(message: string) {
    this.logs.push({ level: LogLine_Level.INFO, message });
    this.changed.emit("change");
  }

  write(text: string) {
    this.output = Buffer.concat([this.output, Buffer.from(text)]);
    this.changed.emit("change");
  }

  /** Waits until all that was written is durable. */
  private async flush() {
    while (this.durable.bytes < this.output.length || this.durable.logs < this.logs.length) {
      await once(this.changed, "change", { signal: this.stop.signal });
    }
  }

  /** Carries what is written, over as many streams as it takes. A new one begins where the server has it. */
  private async emit() {
    while (jobs.has(this.token)) {
      try {
        for await (const { refusal, durableBytes, durableLogs } of service.emit(this.frames())) {
          if (TRY_AGAIN.includes(refusal)) throw new Error(refusal);
          if (refusal) {
            this.refusal = refusal;
            this.stop.abort();
          } else {
            this.durable = { bytes: Number(durableBytes), logs: Number(durableLogs) };
            this.changed.emit("change");
          }
        }
      } catch {
        await sleep(1000);
      }
    }
  }

  /** From what is durable on, whatever is new. */
  private async *frames() {
    let { bytes, logs } = this.durable;
    while (jobs.has(this.token)) {
      const frame = {
        leaseToken: this.token,
        offset: BigInt(bytes),
        data: this.output.subarray(bytes, bytes + FRAME_BYTES_MAX),
        logOffset: BigInt(logs),
        logs: this.logs.slice(logs, logs + FRAME_LINES_MAX),
      };
      bytes += frame.data.length;
      logs += frame.logs.length;
      if (frame.data.length > 0 || frame.logs.length > 0) yield frame;
      else await once(this.changed, "change");
    }
  }

  close() {
    jobs.delete(this.token);
    this.changed.emit("change");
  }
}

const jobs = new Map<string, Job>();
let outbox = mailbox();
let received = 0;
let interval = 1000;
let unanswered = 0;
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
    outbox = mailbox(); // Nobody reads this one.
  }
}

function obey(directives: Directive[]) {
  for (const { leaseToken, action } of directives) {
    if (action !== Directive_Action.RENEWED) jobs.get(leaseToken)?.stop.abort();
  }
}

function receive(message: WorkResponse["message"]) {
  unanswered = 0;
  if (message.case === "welcome") {
    interval = durationMs(message.value.terms!.heartbeatInterval!);
    obey(message.value.directives);
  } else if (message.case === "directives") {
    obey(message.value.directives);
  } else if (message.case === "assignment") {
    received += 1;
    const job = new Job(message.value);
    jobs.set(job.token, job);
    say({ case: "accept", value: { leaseToken: job.token } });
    void job.run();
  } else if (message.case === "ack") {
    const job = jobs.get(message.value.leaseToken);
    if (job) acknowledged(job, message.value);
  }
}

function acknowledged(job: Job, { refusal, message }: WorkResponse_Ack) {
  if (refusal === "JOB_CANCELLED") {
    job.hasStopped(); // The cancel came before our success.
  } else if (TRY_AGAIN.includes(refusal)) {
    setTimeout(() => say(job.report), 1000);
  } else if (refusal && refusal !== "LEASE_LOST" && job.report!.case === "complete") {
    job.fail(refusal, message);
  } else {
    console.log(`${job.id}: ${message || "reported"}`);
    job.close();
    offer();
  }
}

/** Sends heartbeats, also when idle. Each is answered; if one was not when the next is due, nobody hears us. */
async function beat() {
  for (;;) {
    await sleep(interval);
    if (unanswered > 0) connection.abort(new Error("the server is silent"));
    unanswered += 1;
    say({ case: "heartbeat", value: { reports: [...jobs.keys()].map((leaseToken) => ({ leaseToken })) } });
  }
}

/** Keeps a stream open until a drain is over. */
async function serve() {
  while (jobs.size > 0 || !draining) {
    outbox = mailbox();
    received = unanswered = 0;
    // Who we are, what we hold, what was not confirmed, and what we can take.
    const workerId = `${hostname()}-${process.pid}`;
    say({ case: "hello", value: { workerId, kinds: KINDS, leaseTokens: [...jobs.keys()] } });
    for (const job of jobs.values()) if (job.report) say(job.report);
    offer();
    try {
      for await (const { message } of service.work(outbox)) receive(message);
    } catch (error) {
      console.log(`The stream broke, so there will be a new one: ${error}`);
      await sleep(1000);
    }
  }
}

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    draining = true;
    offer();
  });
}
void beat();
await serve();
process.exit();
