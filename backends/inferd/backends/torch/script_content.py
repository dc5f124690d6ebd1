"""Checks the code of a TorchScript archive before torch loads it.

The code is TorchScript, not Python: it can call torch's operators and the module's own methods, and nothing else. Torch
reads its pickled parts with an unpickler that knows tensors, plain values and the classes of the code. Two operators
reach outside the model, though: they write and map any file, from `__setstate__` already while the archive is loaded.
Archives with these, with operators of other libraries, and in the oldest format are refused.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from typing import Any, Final

from inferd.backends.api import LoadError
from inferd.backends.torch.archive_names import check_names
from inferd.backends.torch.errors import reason
from inferd.backends.torch.script_loading import LoadingCode
from inferd.backends.torch.words import words

# As torch's lexer reads: strings, comments, names, everything else by character.
_TOKEN: Final = re.compile(
    r"""\"\"\"(?:\\[\s\S]|(?!\"\"\")[^\\])*\"\"\"|'''(?:\\[\s\S]|(?!''')[^\\])*'''"""
    r"""|"(?:\\[\s\S]|[^"\\\n])*"|'(?:\\[\s\S]|[^'\\\n])*'|\#[^\n]*|[^\W\d]\w*|\d[\w.]*|[^\s\\]"""
)
_FILE_OPERATORS: Final = frozenset({"save", "from_file"})
_NAMESPACES: Final = words(
    "aten prim prims quantized _quantized quantization onednn mkldnn mkldnn_prepacked mkl sparse prepacked "
    "torchvision static_runtime inductor"
)
_CLASSES: Final = words("quantized rnn sparse xnnpack mkldnn")
_NEEDS_CUSTOM: Final = "it is loaded only where repository.allow names custom_ops"


def check_script(torch: Any, data: bytes, name: str, allow: Collection[str], *, isolated: bool = True) -> None:
    """Raises LoadError for an archive whose code reaches outside the model, or loops while it is loaded into the
    server's own process. `name` is for messages; `allow` and `isolated` are those of OpenRequest."""
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        records = list(reader.get_all_records())
        check_names(name, records)
        if "model.json" in (record.casefold() for record in records):
            raise LoadError(f"{name} is in the format of torch before 1.2: save it again with torch.jit.save")
        loading = LoadingCode()
        for record in records:
            folded = record.casefold()
            if folded.startswith("code/") and folded.endswith(".py"):
                tokens = tokens_of(bytes(reader.get_record(record)).decode("utf-8", "replace"))
                loading.add(tokens)
                if "custom_ops" not in allow:
                    _check_tokens(tokens, f"{name}: {record}")
        loop = loading.loop()
        if loop and not isolated:
            raise LoadError(
                f"{name} runs a loop while it is loaded (in {loop}, which __setstate__ calls or is), and torch lets "
                "nothing else of the server run meanwhile: set isolation: process for this model"
            )
    except RuntimeError as error:
        raise LoadError(f"torch {torch.__version__} cannot read {name}: {reason(error)[1]}") from None


def check_code(code: str, where: str) -> None:
    """Raises LoadError for code that calls an operator of another library, or one that opens a file."""
    _check_tokens(tokens_of(code), where)


def tokens_of(code: str) -> list[str]:
    """The code's tokens as torch reads them, without comments."""
    return [token for token in _TOKEN.findall(code) if not token.startswith("#")]


def _check_tokens(tokens: list[str], where: str) -> None:
    tokens = ["", "", *tokens, "", "", "", ""]
    for index in range(2, len(tokens) - 4):
        token = tokens[index]
        attribute = tokens[index - 1] == "."
        if attribute and token in _FILE_OPERATORS and tokens[index - 2] != "self":
            raise LoadError(f"{where} uses torch.{token}, which opens any file on this machine; {_NEEDS_CUSTOM}")
        if token == "torch":
            _check_torch(tokens, index, where)
        elif token == "ops" and not attribute:
            dot, namespace, again = tokens[index + 1 : index + 4]
            if dot != "." or again != "." or namespace not in _NAMESPACES:
                called = f"ops.{namespace[:40]}" if dot == "." else "ops"
                raise LoadError(f"{where} uses {called}, an operator that is not torch's own; {_NEEDS_CUSTOM}")


def _check_torch(tokens: list[str], index: int, where: str) -> None:
    if tokens[index + 1] != ".":
        if tokens[index - 1] != ".":
            raise LoadError(f"{where} uses the name torch in an unusual way; {_NEEDS_CUSTOM}")
    elif tokens[index + 2] == "classes" and tokens[index + 4] not in _CLASSES:
        raise LoadError(
            f"{where} uses torch.classes.{tokens[index + 4][:40]}, a class that is not torch's own; {_NEEDS_CUSTOM}"
        )
