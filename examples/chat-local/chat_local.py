#!/usr/bin/env python3
"""Starts a small model and a longhaul server that asks it, and shows what a job is good for: two people read along, one of
them is cut off and comes back, and a cancelled job leaves the model free.

`longhaul` must be on the PATH. Everything stops when this ends, and the jobs go with a temporary folder.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
QUESTION = "Tell me a long story about a lighthouse and the sea."
TOKENS = 200
TOKENS_OF_THE_CANCELLED = 1500


@contextlib.contextmanager
def running(*command):
    """A server for as long as this lasts, and the address that it names."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = next((found[1] for line in process.stdout if (found := re.search(r"([\d.]+:\d+)", line))), None)
        if address is None:
            raise SystemExit(f"{command} does not listen")
        yield address
    finally:
        process.terminate()
        process.wait()


class Reader:
    """A watcher of a job, who knows how far it has read and what it has read by then."""

    def __init__(self, job):
        self.job, self.text, self.cursor, self.process = job, b"", 0, None

    def read(self, until=lambda reader: False):
        """Reads on behind the cursor, to the job's end or until that holds."""
        command = ["longhaul", "watch", self.job, "--json", "--after", str(self.cursor)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        for line in self.process.stdout:
            message = json.loads(line)
            self.cursor = int(message.get("sequence", self.cursor))
            if reset := message.get("outputReset"):
                self.text = self.text[: int(reset.get("keptBytes", 0))]
            if (output := message.get("output")) and "channel" not in output:
                self.text += base64.b64decode(output["data"])
            if until(self):
                break
        return self

    def cut_off(self):
        self.process.kill()
        self.process.wait()


def main():
    model = running(sys.executable, HERE / "model.py", "--port", 0, "--slots", 1)
    folder = tempfile.TemporaryDirectory(prefix="longhaul-chat-")
    with model as model, folder as data:
        server = running(
            "longhaul", "serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--chat-url", f"http://{model}/v1"
        )
        with server as server:
            os.environ["LONGHAUL_SERVER"] = f"http://{server}"
            show(f"http://{model}")


def show(model):
    def call(command, *arguments):
        said = subprocess.run(["longhaul", command, *arguments, "--json"], stdout=subprocess.PIPE, check=True).stdout
        return json.loads(said)

    def ask(tokens):
        return call("start", "chat", "--input", json.dumps({"prompt": QUESTION, "max_tokens": tokens}))["id"]

    job = ask(TOKENS)
    print(f"asked: {QUESTION}")
    first = Reader(job)
    reading = threading.Thread(target=first.read)
    reading.start()
    second = Reader(job).read(until=lambda reader: len(reader.text) > 100)
    second.cut_off()
    print(f"the second reader is cut off after {len(second.text)} bytes, at event {second.cursor}")
    second.read()
    reading.join()
    result = call("status", job)["result"]
    print(result["text"])
    same = first.text == second.text == result["text"].encode()
    print(f"both read the same {len(first.text)} bytes: {'yes' if same else 'no'}")
    print(f"usage: {json.dumps(result['usage'])}")

    job = ask(TOKENS_OF_THE_CANCELLED)
    Reader(job).read(until=lambda reader: reader.text).cut_off()
    start = time.monotonic()
    call("cancel", job)
    while busy(model):
        time.sleep(0.01)
    print(f"cancelled: the model is free after {time.monotonic() - start:.2f} s")
    raise SystemExit(0 if same else 1)


def busy(model):
    """Whether the model writes."""
    with urllib.request.urlopen(f"{model}/slots") as answer:
        return any(slot["is_processing"] for slot in json.load(answer))


if __name__ == "__main__":
    main()
