"""The settings of the torch backend: `options:` of a model, checked and applied to a model's calls.

freeze         TorchScript only: weights and attributes are folded into the code, which runs faster; default false
channels_last  weights and inputs of rank 4 are stored with the channels last, which makes convolutions faster on many
               devices; not for AOTInductor; default false
autocast       bf16 | fp16: operators that gain from it compute in that type; outputs keep the type of the signature;
               not for AOTInductor; default: none
compile        torch.export only: torch.compile at the first run and again for new kinds of shapes, which takes seconds
               to minutes each time; needs a C++ compiler (CPU) or triton (CUDA); default false
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from inferd.backends.api import LoadError
from inferd.backends.torch.archive import ArchiveFormat
from inferd.backends.torch.errors import reason

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
_FOR = {
    "freeze": (ArchiveFormat.TORCHSCRIPT,),
    "channels_last": (ArchiveFormat.TORCHSCRIPT, ArchiveFormat.EXPORTED),
    "autocast": (ArchiveFormat.TORCHSCRIPT, ArchiveFormat.EXPORTED),
    "compile": (ArchiveFormat.EXPORTED,),
}
_COMPILERS = ("g++", "clang++", "c++")
Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """Checked settings, described at the top of this module."""

    freeze: bool = False
    channels_last: bool = False
    autocast: str | None = None
    compile: bool = False

    @classmethod
    def read(cls, options: Mapping[str, Any], archive_format: ArchiveFormat, artefact: str) -> TorchOptions:
        """Checks a model's `options:` for a file of this format. Raises LoadError; the message names the key, what was
        expected and what was given."""
        known = [field.name for field in fields(cls)]
        for key, value in options.items():
            if key not in known:
                raise LoadError(f"unknown option {key!r} of the torch backend; known are: {', '.join(known)}")
            if key == "autocast":
                if value is not None and (not isinstance(value, str) or value not in AUTOCAST):
                    expected = ", ".join(AUTOCAST)
                    raise LoadError(
                        f"option 'autocast' of the torch backend: expected one of {expected}, got {value!r}"
                    )
            elif not isinstance(value, bool):
                raise LoadError(f"option {key!r} of the torch backend: expected true or false, got {value!r}")
            if value and archive_format not in _FOR[key]:
                formats = " or ".join(other.value for other in _FOR[key])
                raise LoadError(f"option {key!r} is for {formats}; {artefact} is a {archive_format.value}")
        return cls(**options)

    def check(self, torch: Any, device: str) -> None:
        """Raises LoadError for a setting that this version of torch, or this machine, does not support on `device`."""
        if self.autocast:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # torch only warns and then computes without autocast
                    self._autocast(torch, device)
            except Exception as error:
                raise LoadError(
                    f"option 'autocast: {self.autocast}': this torch ({torch.__version__}) cannot do it on {device}: "
                    f"{reason(error)[1]}"
                ) from None
        if self.compile and device == "cpu":
            if not any(shutil.which(compiler) for compiler in _COMPILERS):
                raise LoadError(
                    f"option 'compile' needs a C++ compiler on the CPU; there is no {' or '.join(_COMPILERS)}"
                )
        elif self.compile and find_spec("triton") is None:
            raise LoadError("option 'compile' needs triton on CUDA, which is not installed")

    def lay_out(self, torch: Any, module: Any) -> None:
        """Changes the memory layout of a module's weights as the settings say, in place."""
        if self.channels_last:
            module.to(memory_format=torch.channels_last)

    def argument(self, torch: Any, tensor: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Wraps a function that makes tensors from arrays: the tensors get the memory layout of the settings."""
        if not self.channels_last:
            return tensor
        layout = torch.channels_last

        def laid_out(array: Any) -> Any:
            made = tensor(array)
            return made.contiguous(memory_format=layout) if made.dim() == 4 else made

        return laid_out

    def call(self, torch: Any, function: Call, device: str) -> Call:
        """Wraps a model's function as the settings say: compiled, and run under autocast."""
        if self.compile:
            function = torch.compile(function, dynamic=True)
        if not self.autocast:
            return function

        def cast(*args: Any, **kwargs: Any) -> Any:
            with self._autocast(torch, device):
                return function(*args, **kwargs)

        return cast

    def _autocast(self, torch: Any, device: str) -> Any:
        return torch.autocast(device.partition(":")[0], dtype=getattr(torch, AUTOCAST[self.autocast or ""]))
