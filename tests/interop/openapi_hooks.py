"""What no document can say of two parameters at once, schemathesis is told here."""

import re

import schemathesis

NAME, KEY = re.compile("[ -~]{1,128}"), re.compile("[!#-~]{1,128}")
"""A request id, and one that a header can be as it is."""
HEADER = re.compile('[!#-~]([ -~]{0,126}[!-~])?|"[ -~]{1,126}[!-~]')
"""A key as a header may have it, in quotes or without."""


@schemathesis.hook
def before_call(context, case, kwargs):
    """Lets a key be that of the body, which is the same thing, and takes no page token that no page has given for this list."""
    headers, query = case.headers or {}, case.query or {}
    named = case.body.get("requestId") if isinstance(case.body, dict) else None
    key = headers.get("Idempotency-Key")
    if isinstance(named, str) and isinstance(key, str) and NAME.fullmatch(named) and HEADER.fullmatch(key):
        del headers["Idempotency-Key"]
        if KEY.fullmatch(named):
            headers["Idempotency-Key"] = named
    if isinstance(query.get("pageToken"), str):
        del query["pageToken"]
