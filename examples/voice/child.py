"""One side of docs/child-protocol.md, to be copied: a line for each job comes in, messages go out.

A job that is to stop does so where it next says something. An exception out of a signal's handler could come in the
middle of a message, or be lost in a library.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any


class Failure(Exception):
    """Why an attempt fails. Where it is permanent, a further attempt could not help."""

    def __init__(self, reason: str, message: str, permanent: bool = False, **details: Any):
        self.fields = {"reason": reason, "message": message, "permanent": permanent, "details": details}


def invalid(field: str, wish: str) -> Failure:
    """For an input: which field is bad, and what is wished of it."""
    return Failure("INVALID_INPUT", f"{field} must be {wish}", permanent=True, field=field)


class Child:
    def __init__(self):
        # What a library prints must not come between the messages, so it goes to the job's log.
        self.messages = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.busy = self.stopping = False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: Any) -> None:
        if not self.busy:
            sys.exit()
        self.stopping = True

    def check(self) -> None:
        """Ends the job here if it is to stop."""
        if self.stopping:
            raise Failure("STOPPED", "stopped in the middle, as it was told to")

    def say(self, **message: Any) -> None:
        self.check()
        print(json.dumps(message), file=self.messages, flush=True)

    def serve(self, work: Callable[["Child", dict], Any]) -> None:
        """Does one job after the other. What `work` returns is the result; what it raises makes the attempt fail."""
        for line in sys.stdin.buffer:
            self.busy, self.stopping = True, False
            try:
                ending = {"result": work(self, json.loads(line))}
            except Failure as failure:
                ending = {"failure": failure.fields}
            except Exception as error:
                traceback.print_exc()
                ending = {"failure": {"reason": "HANDLER_ERROR", "message": repr(error)[:1000]}}
            # Said in any case. A program that ended here would have to load its models again for the next job.
            self.busy = self.stopping = False
            self.say(**ending)
