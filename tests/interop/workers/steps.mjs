/* What both forms of the Node worker share: what is told, a lease, and the steps of a job. */

import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

export const { values: options } = parseArgs({
  options: {
    server: { type: "string" },
    "emit-server": { type: "string" },
    name: { type: "string" },
    kind: { type: "string" },
    slots: { type: "string", default: "1" },
    form: { type: "string" },
  },
});
const PROTO = fileURLToPath(new URL("../../../proto", import.meta.url));
const FORMAT = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true, includeDirs: [PROTO] };
const { longhaul } = grpc.loadPackageDefinition(loadSync("longhaul/v1/worker_service.proto", FORMAT));
export const PAUSE = 200; // Milliseconds before the next try after a break.

export const tell = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
export const seconds = (duration) => (duration ? duration.seconds + duration.nanos / 1e9 : 0);
export const duration = (seconds) => ({ seconds: Math.floor(seconds), nanos: Math.round((seconds % 1) * 1e9) });

class Stopped extends Error {}

/** A job that this worker holds, what it wrote, and how much of that is durable. */
class Lease {
  output = new Map([["", Buffer.alloc(0)]]);
  durable = new Map([["", 0]]);
  logs = [];
  durableLogs = 0;
  isStopped = false;
  isSilent = false;
  refusal = "";
  report = null;

  constructor(assignment) {
    this.token = assignment.lease_token;
    this.job = assignment.job.id;
    this.attempt = assignment.job.attempt + 1;
    this.input = JSON.parse(assignment.input_json);
    tell("assigned", {
      job: this.job,
      attempt: this.attempt,
      kind: assignment.job.kind,
      traceparent: assignment.traceparent,
      tracestate: assignment.tracestate,
      has_deadline: assignment.attempt_deadline !== null,
    });
  }

  get logsAreDurable() {
    return this.durableLogs === this.logs.length;
  }

  get isDurable() {
    return this.logsAreDurable && [...this.output].every(([channel, data]) => this.durable.get(channel) === data.length);
  }

  get written() {
    return [...this.output.values()].reduce((sum, data) => sum + data.length, 0);
  }

  /** Appends, and returns the frame that says so. */
  append(data, channel, log) {
    const before = this.output.get(channel) ?? Buffer.alloc(0);
    const frame = { lease_token: this.token, channel, offset: before.length, data, log_offset: this.logs.length };
    this.output.set(channel, Buffer.concat([before, data]));
    if (!this.durable.has(channel)) this.durable.set(channel, 0);
    this.logs.push(...(log ? [log] : []));
    return { ...frame, logs: log ? [log] : [] };
  }

  obey({ action, grace }) {
    if (action !== "RENEWED" && !this.isStopped) {
      tell(action.toLowerCase(), { job: this.job, grace: seconds(grace) });
      this.isStopped = true;
    }
    return action;
  }
}

/** What both forms share: slots, steps and the way to an end. */
export class Worker {
  leases = new Map();
  jobs = new Map();
  isDraining = false;
  interval = 1;

  constructor() {
    this.reconnect();
  }

  get isOver() {
    return this.isDraining && this.leases.size === 0;
  }

  get freeSlots() {
    return Number(options.slots) - this.leases.size;
  }

  get reports() {
    return [...this.leases.values()].filter((lease) => !lease.isSilent).map(({ token }) => ({ lease_token: token }));
  }

  /** Takes new connections: those that there are may lead nowhere. */
  reconnect() {
    this.stub = this.connect(options.server);
    this.emitter = this.connect(options["emit-server"] ?? options.server);
  }

  connect(address) {
    const backoff = { "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 300 };
    // Otherwise a new client would share the connection of an old one.
    const own = { "grpc.use_local_subchannel_pool": 1 };
    return new longhaul.v1.WorkerService(address, grpc.credentials.createInsecure(), { ...backoff, ...own });
  }

  take(assignment) {
    const lease = new Lease(assignment);
    this.leases.set(lease.token, lease);
    this.jobs.set(lease.token, lease.job);
    this.run(lease).catch((error) => {
      tell("bug", { job: lease.job, error: String(error.stack) });
      process.exit(70);
    });
    return lease;
  }

  /** Waits for a condition; false if the job was to stop before. */
  async until(lease, condition) {
    while (!condition()) {
      if (lease.isStopped && !lease.input.stubborn) return false;
      await sleep(10);
    }
    return true;
  }

  async run(lease) {
    const token = { lease_token: lease.token };
    try {
      await this.report(lease, token);
      for (const step of lease.input.steps) {
        if ((step.attempt ?? lease.attempt) !== lease.attempt) continue;
        if (lease.isStopped && !lease.input.stubborn) throw new Stopped();
        if ("progress" in step) {
          await this.report(lease, { ...token, progress: { fraction: step.progress, stage: step.stage ?? "" } });
        } else if ("metrics" in step) {
          await this.report(lease, { ...token, metrics: step.metrics });
        } else if ("output" in step) {
          await this.append(lease, Buffer.from(step.output), step.channel ?? "");
        } else if ("log" in step) {
          await this.append(lease, Buffer.alloc(0), "", { level: "INFO", message: step.log });
        } else if ("sleep" in step) {
          const end = Date.now() + step.sleep * 1000;
          await this.until(lease, () => Date.now() >= end);
        } else if ("wait_for" in step) {
          await this.flush(lease);
          tell("waiting", { job: lease.job, attempt: lease.attempt });
          if (!(await this.until(lease, () => existsSync(step.wait_for)))) throw new Stopped();
        } else if ("wait_for_cancel" in step) {
          await this.flush(lease);
          tell("waiting", { job: lease.job, attempt: lease.attempt });
          await this.until(lease, () => lease.isStopped);
          throw new Stopped();
        } else if ("silent" in step) {
          lease.isSilent = true;
        } else if ("crash" in step) {
          await this.flush(lease);
          tell("crash", { job: lease.job });
          process.exit(1);
        } else if ("fail" in step) {
          const failure = { reason: step.fail, message: "as it was told", permanent: step.permanent ?? false };
          return await this.end(lease, "fail", { ...token, failure }, step.twice);
        } else if ("release" in step) {
          const request = { ...token, reason: "AS_IT_WAS_TOLD", delay: duration(step.release) };
          return await this.end(lease, "release", request, step.twice);
        } else if ("result" in step) {
          const request = { ...token, result_json: JSON.stringify(step.result), output_bytes: lease.written };
          return await this.end(lease, "complete", request, step.twice);
        } else {
          throw new Error(`there is no such step: ${JSON.stringify(step)}`);
        }
      }
      throw new Error("the steps have no end");
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      await this.end(lease, "fail", token);
    }
  }

  /** Waits until what was written is durable, or will never be. */
  async flush(lease) {
    while (!lease.isDurable && !lease.refusal && !lease.isStopped) await sleep(10);
  }

  /** On SIGTERM: takes no more jobs, and ends with the last that it has. */
  leave() {
    this.isDraining = true;
    this.offer();
    tell("draining");
  }
}
