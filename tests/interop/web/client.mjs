/* What a page does, by @connectrpc over gRPC-Web: starts, watches and cancels a job, and is refused.
 *
 *   node client.mjs TRANSPORT URL DESCRIPTORS
 *
 * It prints one object with what it has seen. The services are made from their descriptors, without generated code. */

import { readFileSync } from "node:fs";

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport as createNodeTransport } from "@connectrpc/connect-node";
import { createGrpcWebTransport as createFetchTransport } from "@connectrpc/connect-web";

const [transport, baseUrl, descriptors] = process.argv.slice(2);
const TRANSPORTS = {
  "fetch": () => createFetchTransport({ baseUrl }),
  "http1": () => createNodeTransport({ baseUrl, httpVersion: "1.1" }),
  "http2": () => createNodeTransport({ baseUrl, httpVersion: "2" }),
};
const LARGE = 20 << 20; // Far more than a message may have.

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const stateName = (number) => registry.getEnum("longhaul.v1.Job.State").value[number].name;
const jobs = createClient(registry.getService("longhaul.v1.JobService"), TRANSPORTS[transport]());

/** What an error says, once the call has failed. */
async function refused(call) {
  try {
    await call;
    return { code: "none" };
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    const [info] = ConnectError.from(error).findDetails(registry.getMessage("google.rpc.ErrorInfo"));
    const [request] = ConnectError.from(error).findDetails(registry.getMessage("google.rpc.BadRequest"));
    const fields = request?.fieldViolations.map((violation) => violation.field) ?? [];
    return { code: Code[code], message: rawMessage, reason: info?.reason, domain: info?.domain, fields };
  }
}

/** Follows a job to its end: the states, and the output. */
async function watch(jobId) {
  const states = [];
  let output = "";
  for await (const { event } of jobs.watchJob({ jobId, afterSequence: 0n })) {
    if (event.case === "stateChange") states.push(stateName(event.value.state));
    if (event.case === "output") output += Buffer.from(event.value.data).toString();
  }
  return { states, output };
}

const started = await jobs.startJob({ kind: "simulate", payload: payload({ prompt: "naïve – or not", seconds: 0.2 }) });
const watched = await watch(started.id);

const slow = await jobs.startJob({ kind: "simulate", payload: payload({ prompt: "never", seconds: 600 }) });
const following = watch(slow.id);
const cancelled = stateName((await jobs.cancelJob({ jobId: slow.id })).state);
const followed = await following;

const seen = {
  started: stateName(started.state),
  watched,
  cancelled,
  followed: followed.states.at(-1),
  nothing: await refused(jobs.startJob({})),
  missing: await refused(jobs.getStatus({ jobId: "018f0000-0000-7000-8000-000000000000" })),
  missingWatch: await refused(watch("018f0000-0000-7000-8000-000000000000")),
  large: await refused(jobs.startJob({ kind: "simulate", payload: { case: "inputJson", value: "x".repeat(LARGE) } })),
  late: await refused(watchAll({ timeoutMs: 100 })),
  listed: (await jobs.listJobs({})).jobs.length,
};
console.log(JSON.stringify(seen));
// Connections that are kept for the next call would keep the process as well.
process.exit(0);

/** A job's input. */
function payload(input) {
  return { case: "inputJson", value: JSON.stringify(input) };
}

/** Watches all jobs for as long as a call may. */
async function watchAll(options) {
  for await (const change of jobs.watchJobs({}, options)) void change;
}
