/* The Node worker by the streams: `Work` for everything but output, `Emit` for that. */

import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";

import { options, PAUSE, seconds, tell, Worker } from "./steps.mjs";

/** A worker with one of each stream, which it opens again whenever they end. */
export class StreamForm extends Worker {
  work = null;
  emit = null;

  async serve() {
    this.keepEmitting();
    while (!this.isOver) {
      this.received = this.unanswered = 0;
      const ended = this.open();
      const tokens = this.reports.map((report) => report.lease_token);
      this.say({ hello: { worker_id: options.name, kinds: [options.kind], lease_tokens: tokens } });
      for (const lease of this.leases.values()) if (lease.report) this.say(lease.report);
      this.offer();
      const beat = () => {
        if (this.unanswered > 0) return this.leaveConnection();
        this.unanswered += 1;
        this.say({ heartbeat: { reports: this.reports } });
        timer = setTimeout(beat, this.interval * 1000);
      };
      let timer = setTimeout(beat, this.interval * 1000);
      tell("broken", { stream: "Work", code: await ended });
      clearTimeout(timer);
      if (!this.isOver) await sleep(PAUSE);
    }
  }

  /** Opens a stream, and returns the promise of the status with which it ends. */
  open() {
    this.work = this.stub.Work();
    this.work.on("data", (message) => {
      this.unanswered = 0;
      this.receive(message);
    });
    return ended(this.work);
  }

  /** A heartbeat had no answer when the next was due. */
  leaveConnection() {
    this.reconnect();
    this.work.cancel();
    this.emit?.cancel();
  }

  say(message) {
    if (this.work?.writable) this.work.write(message);
  }

  offer() {
    if (!this.isDraining) this.say({ credit: { free_slots: this.freeSlots, received: this.received } });
    else if (this.leases.size > 0) this.say({ drain: {} });
    else this.work?.end();
  }

  receive(message) {
    if (message.message === "welcome") {
      this.interval = seconds(message.welcome.terms.heartbeat_interval);
      const kept = {};
      for (const directive of message.welcome.directives) {
        kept[this.jobs.get(directive.lease_token)] = this.leases.get(directive.lease_token)?.obey(directive);
      }
      tell("welcome", { kept });
    } else if (message.message === "assignment") {
      this.received += 1;
      const lease = this.take(message.assignment);
      this.say({ accept: { lease_token: lease.token } });
    } else if (message.message === "directives") {
      for (const directive of message.directives.directives) this.leases.get(directive.lease_token)?.obey(directive);
    } else if (message.message === "ack") {
      this.acknowledged(message.ack);
    } else {
      tell(message.message);
    }
  }

  acknowledged(ack) {
    const lease = this.leases.get(ack.lease_token);
    if (!lease) return tell("repeated", { job: this.jobs.get(ack.lease_token), reason: ack.refusal, state: ack.state });
    const [what] = Object.keys(lease.report);
    if (ack.refusal) tell("refused", { job: lease.job, what, reason: ack.refusal });
    else tell("reported", { job: lease.job, what, state: ack.state });
    if (ack.refusal === "JOB_CANCELLED") {
      this.end(lease, "fail", { lease_token: lease.token });
    } else if (ack.refusal === "OUTPUT_MISSING" && !lease.refusal) {
      this.say(lease.report);
    } else {
      this.leases.delete(lease.token);
      this.offer();
    }
  }

  async report(lease, report) {
    this.say({ heartbeat: { reports: [report] } });
  }

  async append(lease, data, channel, log) {
    const frame = lease.append(data, channel, log);
    if (this.emit?.writable) this.emit.write(frame);
  }

  async end(lease, what, request, twice) {
    if (what === "complete") {
      // The server waits for the output, but not for the log.
      while (!lease.logsAreDurable && !lease.refusal && !lease.isStopped) await sleep(10);
    } else {
      await this.flush(lease);
    }
    lease.report = { [what]: request };
    this.say(lease.report);
    if (twice) this.say(lease.report);
  }

  async keepEmitting() {
    for (;;) {
      this.emit = this.emitter.Emit();
      this.emit.on("data", (answer) => this.emitted(answer));
      // A new stream begins with all that is not known to be durable.
      for (const lease of this.leases.values()) {
        for (const [channel, data] of lease.output) {
          const offset = lease.durable.get(channel);
          const logs = channel === "" ? lease.logs.slice(lease.durableLogs) : [];
          const frame = { channel, offset, data: data.subarray(offset), log_offset: lease.durableLogs, logs };
          if (frame.data.length > 0 || logs.length > 0) this.emit.write({ lease_token: lease.token, ...frame });
        }
      }
      tell("broken", { stream: "Emit", code: await ended(this.emit) });
      await sleep(PAUSE);
    }
  }

  emitted(answer) {
    const lease = this.leases.get(answer.lease_token);
    if (answer.refusal) {
      tell("refused", { job: this.jobs.get(answer.lease_token), what: "append", reason: answer.refusal });
      if (lease) lease.refusal = answer.refusal;
    } else if (lease) {
      lease.durable.set(answer.channel, answer.durable_bytes);
      lease.durableLogs = answer.durable_logs;
    }
  }
}

/** How a stream ended: the name of a status. */
function ended(call) {
  return new Promise((resolve) => {
    call.on("error", () => {});
    call.on("status", (status) => resolve(grpc.status[status.code]));
  });
}
