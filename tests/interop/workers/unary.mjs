/* The Node worker by the unary methods, with heartbeats from a timer. */

import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

import { duration, options, PAUSE, seconds, tell, Worker } from "./steps.mjs";

const TRANSIENT = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"].map((name) => grpc.status[name]);
const TIMEOUT = 3; // Seconds for a call; what has no answer by then is repeated over another connection.
const LONG_POLL = 2; // Seconds that a call for jobs may take longer.

// What an error says more than its status, which grpc-js leaves as it came.
const { root: details } = protobuf.parse(`syntax = "proto3";
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; string domain = 2; }`);

/** The server refused a report; the reason is its message. */
class Refused extends Error {
  constructor(error) {
    const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
    const found = bytes && details.lookupType("Status").decode(bytes).details.find((any) => any.typeUrl.endsWith("ErrorInfo"));
    super(found ? details.lookupType("ErrorInfo").decode(found.value).reason : grpc.status[error.code]);
  }
}

/** A worker that repeats each call until it has an answer. */
export class UnaryForm extends Worker {
  poll = null;

  async serve() {
    tell("welcome", { kept: {} });
    this.beat();
    while (!this.isDraining) {
      if (this.freeSlots === 0) {
        await sleep(10);
        continue;
      }
      const request = { worker_id: options.name, kinds: [options.kind], max_jobs: this.freeSlots, wait: duration(LONG_POLL) };
      try {
        const answer = await this.once("LeaseJobs", request, LONG_POLL + TIMEOUT, (call) => (this.poll = call));
        this.interval = seconds(answer.terms.heartbeat_interval);
        // What comes too late for us is never accepted, and goes to somebody else.
        if (!this.isDraining) for (const assignment of answer.assignments) this.take(assignment);
      } catch (error) {
        if (this.isDraining) break;
        tell("broken", { stream: "LeaseJobs", code: grpc.status[error.code] });
        await sleep(PAUSE);
      }
    }
    while (!this.isOver) await sleep(10);
  }

  offer() {
    this.poll?.cancel();
  }

  once(method, request, timeout = TIMEOUT, started = () => {}) {
    const { stub } = this;
    return new Promise((resolve, reject) => {
      const settle = (error, answer) => {
        if (error?.code === grpc.status.DEADLINE_EXCEEDED && stub === this.stub) this.reconnect();
        if (error) reject(error);
        else resolve(answer);
      };
      started(stub[method](request, { deadline: Date.now() + timeout * 1000 }, settle));
    });
  }

  /** Repeats a call until it has an answer. */
  async call(method, request) {
    for (;;) {
      try {
        return await this.once(method, request);
      } catch (error) {
        if (!TRANSIENT.includes(error.code)) throw new Refused(error);
        tell("broken", { stream: method, code: grpc.status[error.code] });
        await sleep(PAUSE);
      }
    }
  }

  async heartbeat(reports) {
    const { directives } = await this.call("Heartbeat", { reports });
    for (const directive of directives) this.leases.get(directive.lease_token)?.obey(directive);
  }

  async beat() {
    for (;;) {
      if (this.reports.length > 0) await this.heartbeat(this.reports);
      await sleep(this.interval * 1000);
    }
  }

  async report(lease, report) {
    await this.heartbeat([report]);
  }

  async append(lease, data, channel, log) {
    try {
      const answer = await this.call("AppendOutput", lease.append(data, channel, log));
      lease.durable.set(channel, answer.durable_bytes);
      lease.durableLogs = answer.durable_logs;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      tell("refused", { job: lease.job, what: "append", reason: error.message });
      lease.refusal = error.message;
    }
  }

  async end(lease, what, request, twice) {
    const method = { complete: "CompleteJob", fail: "FailJob", release: "ReleaseJob" }[what];
    try {
      tell("reported", { job: lease.job, what, ...(await this.call(method, request)) });
      if (twice) tell("repeated", { job: lease.job, reason: "", ...(await this.call(method, request)) });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      tell("refused", { job: lease.job, what, reason: error.message });
      if (error.message === "JOB_CANCELLED") return this.end(lease, "fail", { lease_token: lease.token });
    }
    this.leases.delete(lease.token);
  }
}
