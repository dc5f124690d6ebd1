"""Translates TensorFlow's exceptions into errors for clients: the reason, without node names and stack traces."""

from __future__ import annotations

import re

from inferd.backends.api import BackendError, InvalidInput

_CALLERS_FAULT = ("InvalidArgumentError", "OutOfRangeError", "ValueError", "TypeError")
# Lines before and after the reason.
_NOISE = re.compile(
    r"Graph execution error|Detected at node|defined at \(most recent|<stack traces unavailable>|^\s*File \"|^\s*\[\[|"
    r"root error\(s\) found|successful operations|derived errors ignored|Errors may have originated|"
    r"Input Source operations|Original stack trace|^\s*Function call stack|^\s*\(\d+\)\s*$|^Traceback|^Node: |hint: "
)
_MARKS = re.compile(r"\{\{[^{}]*\}\}\s*|\s*\[Op:[^\]]*\]|^\s*\(\d+\)\s*(?:\w+:\s*)?")
_LONGEST = 500


def translated(error: BaseException, device: str) -> BackendError:
    """The error to raise for an exception that TensorFlow raised while a model ran on `device`."""
    type_name = type(error).__name__
    text = reason(error)
    if type_name == "ResourceExhaustedError":
        return BackendError(f"out of memory on {device}: {text}")
    if type_name in _CALLERS_FAULT:
        return InvalidInput(f"the model refused its inputs: {text}")
    if type_name == "RuntimeError" and "closed Session" in text:
        return BackendError("the instance is closed")
    return BackendError(f"the model failed: {text}")


def reason(error: BaseException) -> str:
    """The reason that an exception of TensorFlow gives, on one line of at most 500 characters."""
    message = str(getattr(error, "message", None) or error)
    lines = [_MARKS.sub("", line).strip() for line in message.splitlines() if not _NOISE.search(line)]
    text = " ".join(line for line in lines if line) or type(error).__name__
    return text[: _LONGEST - 1] + "…" if len(text) > _LONGEST else text
