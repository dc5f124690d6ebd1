"""Translates torch's exceptions into errors for clients: the reason, without TorchScript's or Python's traceback.

Torch raises RuntimeError for almost everything. The caller's inputs are at fault if the text is that of an operator's
own check (sizes, element types, indices), or if the model itself raised the exception. Otherwise the model is at fault.
"""

from __future__ import annotations

import re

from inferd.backends.api import BackendError, InvalidInput

_LAST_LINE = re.compile(
    r"^(?:builtins\.)?(?P<type>[A-Za-z_][\w.]*(?:Error|Exception)): (?P<text>.*)", re.MULTILINE | re.DOTALL
)
# Raised by a `raise` in the model's code, or by the guards of torch.export.
_CALLERS_FAULT = ("ValueError", "AssertionError", "TypeError", "IndexError", "KeyError")
_INPUT_WORDS = re.compile(
    "|".join(
        (
            r"shapes? cannot be multiplied",
            r"must match|mismatch|inconsistent|same (dtype|device|shape|size|number of dim)|should be (the )?same",
            r"expected .{0,120}(got|but)|expect(ed|s) .{0,60}(size|dim|shape|rank|channels)",
            r"is invalid for|out of (range|bounds)|size must",
            r"dimension(s|ality)?\b.{0,60}(must|should|specified)",
            r"not implemented for '|can't be cast",
            r"Kernel size can't be greater|Calculated padded input size|padding size should be",
            r"Guard failed",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 500


def translated(error: BaseException, device: str) -> BackendError:
    """The error to raise for an exception that torch raised while a model ran on `device`."""
    type_name, text = reason(error)
    if "OutOfMemory" in type(error).__name__ or "out of memory" in text:
        return BackendError(f"out of memory on {device}: {text}")
    if type_name in _CALLERS_FAULT or _INPUT_WORDS.search(text):
        return InvalidInput(f"the model refused its inputs: {text}")
    return BackendError(f"the model failed: {text}")


def reason(error: BaseException) -> tuple[str, str]:
    """The type of the innermost exception and its text, on one line of at most 500 characters."""
    text = str(error)
    type_name = type(error).__name__
    if "Traceback of TorchScript" in text:
        # The reason follows the last traceback: "RuntimeError: mat1 and mat2 ...".
        tail = text.rpartition("<--- HERE")[2]
        found = _LAST_LINE.search(tail)
        if found is not None:
            type_name, text = found["type"].rpartition(".")[2], found["text"]
        else:
            text = tail.strip() or "an operator failed"
    # After the reason, torch writes advice on debugging, C++ frames and the failing line of generated code.
    for mark in (
        "\nException raised from",
        "\nCUDA kernel errors might",
        "\nWhile executing",
        "\nTraceback",
        '\n  File "',
    ):
        text = text.partition(mark)[0]
    text = " ".join(text.split())
    return type_name, (text[: _LONGEST - 1] + "…" if len(text) > _LONGEST else text) or type_name
