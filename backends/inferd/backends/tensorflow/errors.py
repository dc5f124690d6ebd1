"""Translates TensorFlow's exceptions into errors for clients: the reason, without node names and stack traces.

A failure inside the model is the model's, also where an operator calls it an invalid argument: its arguments are
tensors of the graph. The caller is at fault in two cases: an operator complains of a size and the signature leaves
sizes open, or an operator cannot decode what stands in a string, and the signature has inputs of strings.
"""

from __future__ import annotations

import re

from inferd.backends.api import BackendError, BrokenContract, InvalidInput

_ARGUMENT_ERRORS = ("InvalidArgumentError", "OutOfRangeError", "ValueError", "TypeError", "DataLossError")
_SIZES = re.compile(
    r"incompatible|evenly divisible|must be (equal|broadcastable|at least|<=|the same)|should match|does not match"
    r"|mismatch|same (shape|size|number)|dimension.{0,60}(must|should|expected|match)|Input to reshape"
    r"|(expected|requires|must have|must be) .{0,60}(dimension|shape|rank|size)|is not in \[0|out of (range|bounds)"
    r"|Cannot feed value of shape",
    re.IGNORECASE | re.DOTALL,
)
_CONTENT = re.compile(
    r"pars(e|ing)\b|Feature: |Invalid serialized|Unknown image file format|Expected image"
    r"|(Invalid|Error).{0,40}(JPEG|PNG|GIF|BMP|WAV)|could not correctly convert string|base64|Bad encoding"
    r"|Invalid (UTF|character)|Field \d+ .{0,40}record",
    re.IGNORECASE,
)
# What no other inputs would change.
_NOT_THERE = re.compile(
    r"Could not find callback with key|No OpKernel was registered|No registered '\w+' OpKernel|Op type not registered"
    r"|Could not satisfy (explicit )?device|was explicitly assigned to /|No such device|uninitialized"
    r"|not (been )?initialized|is not (found|available) .{0,40}device",
    re.IGNORECASE,
)
# Lines before and after the reason.
_NOISE = re.compile(
    r"Graph execution error|Detected at node|defined at \(most recent|<stack traces unavailable>|^\s*File \"|^\s*\[\[|"
    r"root error\(s\) found|successful operations|derived errors ignored|Errors may have originated|"
    r"Input Source operations|Original stack trace|^\s*Function call stack|^\s*\(\d+\)\s*$|^Traceback|^Node: |hint: "
)
_MARKS = re.compile(r"\{\{[^{}]*\}\}\s*|\s*\[Op:[^\]]*\]|^\s*\(\d+\)\s*(?:\w+:\s*)?")
_LONGEST = 500


def translated(error: BaseException, device: str, *, sizes_open: bool, strings: bool) -> BackendError:
    """The error to raise for an exception that TensorFlow raised while a model ran on `device`, on inputs that fit the
    signature.

    sizes_open   the caller may have chosen sizes that the model does not take
    strings      the signature has inputs of strings
    """
    type_name = type(error).__name__
    text = reason(error)
    if type_name == "ResourceExhaustedError":
        return BackendError(f"out of memory on {device}: {text}")
    if type_name == "RuntimeError" and "closed Session" in text:
        return BackendError("the instance is closed")
    if type_name == "UnimplementedError" or _NOT_THERE.search(text):
        return BrokenContract(f"the model needs what is not there: {text}")
    if type_name in _ARGUMENT_ERRORS and ((sizes_open and _SIZES.search(text)) or (strings and _CONTENT.search(text))):
        return InvalidInput(f"the model refused its inputs: {text}")
    return BackendError(f"the model failed: {text}")


def reason(error: BaseException) -> str:
    """The reason that an exception of TensorFlow gives, on one line of at most 500 characters."""
    message = str(getattr(error, "message", None) or error)
    lines = [_MARKS.sub("", line).strip() for line in message.splitlines() if not _NOISE.search(line)]
    text = " ".join(line for line in lines if line) or type(error).__name__
    return text[: _LONGEST - 1] + "…" if len(text) > _LONGEST else text
