"""The settings of the torch backend: `options:` of a model, checked, and what they do to a call.

freeze         TorchScript only: weights and attributes are folded into the code, which runs faster; default false
channels_last  weights and inputs of rank 4 lie in memory with the channels last, which convolutions like on many
               devices; not for AOTInductor; default false
autocast       bf16 | fp16: operators that gain from it compute in that type; outputs keep the type of the signature;
               not for AOTInductor; default: none
compile        torch.export only: torch.compile at the first run of each kind of shape, which takes seconds to minutes;
               needs a C++ compiler (CPU) or triton (CUDA); default false
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from inferd.backends.api import LoadError
from inferd.backends.torch.archive import Kind
from inferd.backends.torch.errors import reason

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
_FOR = {
    "freeze": (Kind.TORCHSCRIPT,),
    "channels_last": (Kind.TORCHSCRIPT, Kind.EXPORTED),
    "autocast": (Kind.TORCHSCRIPT, Kind.EXPORTED),
    "compile": (Kind.EXPORTED,),
}
_COMPILERS = ("g++", "clang++", "c++")
Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """Checked settings."""

    freeze: bool = False
    channels_last: bool = False
    autocast: str | None = None
    compile: bool = False

    @classmethod
    def read(cls, options: Mapping[str, Any], kind: Kind, artefact: str) -> TorchOptions:
        """Checks a model's `options:` for a file of this kind. Raises LoadError that names the key, what was expected
        and what came."""
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
            if value and kind not in _FOR[key]:
                kinds = " or ".join(other.value for other in _FOR[key])
                raise LoadError(f"option {key!r} is for {kinds}; {artefact} is a {kind.value}")
        return cls(**options)

    def check(self, torch: Any, device: str) -> None:
        """Raises LoadError for what this torch, or this machine, cannot do on the device."""
        kind = device.partition(":")[0]
        if self.autocast:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # torch would warn and compute without
                    self._autocast(torch, device)
            except Exception as error:
                raise LoadError(
                    f"option 'autocast: {self.autocast}': this torch ({torch.__version__}) cannot do it on {device}: "
                    f"{reason(error)[1]}"
                ) from None
        if self.compile and kind == "cpu":
            if not any(shutil.which(compiler) for compiler in _COMPILERS):
                raise LoadError(
                    f"option 'compile' needs a C++ compiler on the CPU; there is no {' or '.join(_COMPILERS)}"
                )
        elif self.compile and find_spec("triton") is None:
            raise LoadError("option 'compile' needs triton on CUDA, which is not installed")

    def lay_out(self, torch: Any, module: Any) -> None:
        """Puts the weights of a module in the wanted order, in place."""
        if self.channels_last:
            module.to(memory_format=torch.channels_last)

    def argument(self, torch: Any, tensor: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A maker of tensors that puts them in the wanted order."""
        if not self.channels_last:
            return tensor
        layout = torch.channels_last

        def laid_out(array: Any) -> Any:
            made = tensor(array)
            return made.contiguous(memory_format=layout) if made.dim() == 4 else made

        return laid_out

    def call(self, torch: Any, function: Call, device: str) -> Call:
        """The function with everything that a run needs around it."""
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
