/* A foreign worker for tests, in Node with grpc-js and no generated code: the twin of worker.py, which says what an
 * input may hold and what is printed.
 */

import { options, tell } from "./steps.mjs";
import { StreamForm } from "./streams.mjs";
import { UnaryForm } from "./unary.mjs";

const worker = new { work: StreamForm, unary: UnaryForm }[options.form]();
process.on("SIGTERM", () => worker.leave());
await worker.serve();
tell("drained");
process.exit(0);
