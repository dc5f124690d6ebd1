"""Words for what ONNX Runtime says when it cannot load a model: the cause first, then what can be done."""

from __future__ import annotations

import re

_NEWER_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_NEWER_OPSET = re.compile(
    r"Opset (\d+) is under development.*?official support for domain (\S+) is till opset (\d+)", re.DOTALL
)
_UNKNOWN_OPERATOR = re.compile(r"Fatal error: (?:([\w.]*):)?(\w+)\(-?\d+\) is not a registered function/op")
_NOT_IN_OPSET = re.compile(r"No Op registered for (\w+) with domain_version of (\d+)")
_NO_KERNEL = re.compile(r"Could not find an implementation for (?:the node )?(\S*?:?)(\w+)\((\d+)\)")
# "void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<...>&, ...) ONNX Runtime ..."
_SIGNATURE = re.compile(r"^[\w:<>,&*~ ]*?(?:\w+::)+\w+\(.*?\)(?: const)? (?=[A-Z])", re.DOTALL)


def load_reason(text: str, version: str) -> str:
    """`text`: ONNX Runtime's message, cleaned; `version`: that of ONNX Runtime."""
    if found := _NEWER_IR.search(text):
        return (
            f"IR version {found[1]} of the model is newer than ONNX Runtime {version} reads (up to {found[2]}): "
            f"upgrade onnxruntime, or lower it (onnx.load, model.ir_version = {found[2]}, onnx.save)"
        )
    if found := _NEWER_OPSET.search(text):
        standard = found[2] == "ai.onnx"
        domain = "" if standard else f" of domain {found[2]}"
        how = f" (onnx.version_converter.convert_version(model, {found[3]}))" if standard else ""
        return (
            f"opset {found[1]}{domain} of the model is newer than ONNX Runtime {version} supports (up to {found[3]}): "
            f"upgrade onnxruntime, or export the model with opset {found[3]}{domain}{how}"
        )
    if found := _NOT_IN_OPSET.search(text):
        return (
            f"operator {found[1]} is not in opset {found[2]}, which the model asks for, as ONNX Runtime {version} "
            "knows it: export the model with the opset that has it, or upgrade onnxruntime"
        )
    if found := _UNKNOWN_OPERATOR.search(text):
        operator = f"{found[1]}:{found[2]}" if found[1] else found[2]
        return (
            f"operator {operator} is not one that ONNX Runtime {version} knows in the opset of the model: custom "
            "operators are not loaded; export the model with standard operators, or upgrade onnxruntime"
        )
    if found := _NO_KERNEL.search(text):
        return (
            f"operator {found[2]} (since opset {found[3]}) has no implementation in ONNX Runtime {version} for these "
            f"element types or this device: {plain(text)}"
        )
    return f"ONNX Runtime cannot load the model: {plain(text)}"


def plain(text: str) -> str:
    """`text` without the C++ function in which ONNX Runtime has found the error."""
    return _SIGNATURE.sub("", text, count=1) or text
