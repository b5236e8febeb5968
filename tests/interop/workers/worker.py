"""A foreign worker for tests, in Python with grpcio: each job's input says what to do with it.

It takes jobs by the streams (`--form work`) or by the unary methods (`--form unary`), and prints one JSON object a line
for each thing that happens to it. An input is `{"steps": [...], "stubborn": false}`. A stubborn job goes on whatever the
server says, so that a test sees its reports refused. A step is one of these, or with an `attempt` for that one only:

    {"progress": 0.5, "stage": "Reading"}       {"metrics": {"tokens": 3}}      {"output": "text", "channel": ""}
    {"log": "line"}                             {"sleep": 0.2}                  {"wait_for": "a file that appears"}
    {"wait_for_cancel": true}                   {"silent": true}                {"crash": true}
    {"checkpoint": "text", "keep": 5}           (all output that there is, without `keep`; the Python worker alone, as `"times": 9` of output)
    {"fail": "REASON", "permanent": true}       {"release": 0.5}                {"result": {}}

The last three, which end an attempt, are reported twice if they have `"twice": true`.
"""

import argparse
import signal

from steps import tell
from streams import StreamForm
from unary import UnaryForm


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--emit-server", help="where output goes, if it has a way of its own")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--form", choices=["work", "unary"], required=True)
    options = parser.parse_args()
    worker = {"work": StreamForm, "unary": UnaryForm}[options.form](options)
    signal.signal(signal.SIGTERM, worker.leave)
    worker.serve()
    tell("drained")


if __name__ == "__main__":
    main()
