"""Translates torch's exceptions into errors for clients: the reason, without TorchScript's or Python's traceback.

Torch raises RuntimeError for almost everything. A failure inside the model is the model's, whatever its words are:
nobody can tell whether the inputs or the model are wrong. The caller is at fault in three cases: the model's own code
raises ValueError, torch refuses the inputs of an exported program before it runs, or an operator complains of a size
and the signature leaves sizes open.
"""

from __future__ import annotations

import re

from inferd.backends.api import BackendError, BrokenContract, InvalidInput

_LAST_LINE = re.compile(
    r"^(?:builtins\.)?(?P<type>[A-Za-z_][\w.]*(?:Error|Exception)): (?P<text>.*)", re.MULTILINE | re.DOTALL
)
# The checks that torch.export makes of the inputs of a program.
_GUARDS = re.compile(r"Guard failed|Expected input at ")
_SIZES = re.compile(
    "|".join(
        (
            r"shapes? cannot be multiplied",
            r"must match|mismatch|inconsistent|same (shape|size|number of dim)|should be (the )?same",
            r"expected .{0,120}(got|but)|expect(ed|s) .{0,60}(size|dim|shape|rank|channels)",
            r"is invalid for|out of (range|bounds)|size must",
            r"dimension(s|ality)?\b.{0,60}(must|should|specified)",
            r"Kernel size can't be greater|Calculated padded input size|padding size should be",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)
_TYPES = re.compile(r"\bdtype|scalar type|\bdevice")  # fixed by the signature and the placement: never the caller's
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory")
# What no other inputs would change: the element types of all tensors are fixed by the signature.
_NOT_THERE = re.compile(
    "|".join(
        (
            r"Could not run '\S+' with arguments from the '\w+' backend",
            r"not (compiled|linked) with (support for )?(CUDA|cuda|\w+ (devices|enabled))",
            r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device|invalid device ordinal",
            r"not implemented for '\w+'|is not currently (implemented|supported) (for|on) the \w+ (device|backend)",
            r"Unknown builtin op|No such operator|Didn't find kernel|no kernel image is available",
        )
    )
)
_LONGEST = 500


def translated(error: BaseException, device: str, *, sizes_open: bool) -> BackendError:
    """The error to raise for an exception that torch raised while a model ran on `device`. `sizes_open`: the inputs fit
    the signature, but the caller may have chosen sizes that the model does not take."""
    type_name, text = reason(error)
    if "OutOfMemory" in type(error).__name__ or _NO_MEMORY.search(text):
        return BackendError(f"out of memory on {device}: {text}")
    if _raised_by_model(error):
        if type_name == "ValueError":  # how Python code says that it was given a wrong value
            return InvalidInput(f"the model refused its inputs: {text}")
        return BackendError(f"the model failed: {text}")
    if _NOT_THERE.search(text):
        return BrokenContract(f"the model needs what is not there: {text}")
    if _GUARDS.match(text) or (sizes_open and _SIZES.search(text) and not _TYPES.search(text)):
        return InvalidInput(f"the model refused its inputs: {text}")
    return BackendError(f"the model failed: {text}")


def _raised_by_model(error: BaseException) -> bool:
    """Whether a `raise` in the model's own TorchScript code has raised the error: its text is not torch's."""
    return type(error).__name__ == "Error" and type(error).__module__.startswith("torch")


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
