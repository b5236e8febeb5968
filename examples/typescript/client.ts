/* A client for longhaul: starts a job, shows its progress and its output live, and prints its result.
 *
 * A watch that breaks is opened again after the last message that was seen, so nothing is missed and nothing comes twice.
 */

import { randomUUID } from "node:crypto";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type JobEvent, Job_State } from "./generated/longhaul/v1/job_pb.js";
import { JobService } from "./generated/longhaul/v1/job_service_pb.js";

const SERVER = process.env.LONGHAUL_SERVER ?? "127.0.0.1:3000";
const TRANSIENT = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled];

const service = createClient(JobService, createGrpcTransport({ baseUrl: `http://${SERVER}` }));

/** Waits a moment if what failed may work the next time, or else throws it again. */
async function forgive(error: unknown) {
  const { code, message } = ConnectError.from(error);
  if (!TRANSIENT.includes(code)) throw error;
  console.error(`(${message}; trying again)`);
  await sleep(1000);
}

/** Repeats a call that failed on its way. A job is still started once only, thanks to its request id. */
async function untilItWorks<Answer>(call: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await forgive(error);
    }
  }
}

/** Every event of a job to its end, over as many streams as it takes. */
async function* watch(jobId: string) {
  let seen = 0n;
  for (;;) {
    try {
      for await (const event of service.watchJob({ jobId, afterSequence: seen })) {
        seen = event.sequence;
        yield event;
      }
      return; // A watch ends well only after the end of its job.
    } catch (error) {
      await forgive(error);
    }
  }
}

function show({ event }: JobEvent) {
  switch (event.case) {
    case "stateChange":
      console.log(Job_State[event.value.state].padEnd(10), event.value.failure?.message ?? "");
      break;
    case "progress":
      console.log(`${Math.round(100 * (event.value.fraction ?? 0))} %`.padStart(9), "", event.value.stage);
      break;
    case "log":
      console.log("log".padEnd(10), event.value.message);
      break;
    case "output":
      process.stdout.write(event.value.data);
      break;
    case "outputReset":
      // An attempt failed and the next one begins: what it wrote counts only up to here.
      console.log(`(void from byte ${event.value.keptBytes} on)`);
      break;
  }
}

const input = { text: process.argv[2] ?? (await text(process.stdin)) };
const requestId = randomUUID();
const { id } = await untilItWorks(() => service.startJob({ kind: "count-words", payload: { case: "input", value: input }, requestId }));
console.log("job".padEnd(10), id);
for await (const event of watch(id)) show(event);
const job = await untilItWorks(() => service.getStatus({ jobId: id }));
if (job.result) console.log("result".padEnd(10), JSON.stringify(toJson(ValueSchema, job.result)));
process.exitCode = job.state === Job_State.SUCCEEDED ? 0 : 1;
