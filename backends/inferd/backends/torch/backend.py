"""The torch backend: TorchScript `model.pt` and torch.export or AOTInductor `model.pt2`.

What a file is, is told by its content, not its name. Pickled files are refused and never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd.backends.api import IncompleteArtefact, LoadError, MissingFramework, Model, OpenRequest
from inferd.backends.torch import archive as torch_archive
from inferd.backends.torch.archive import Kind
from inferd.backends.torch.options import TorchOptions

_PICKLED = ("model.pth", "model.ckpt", "model.bin", "model.pkl")


class TorchBackend:
    """Opens torch models. Thread-safe; imports torch only in `open` and `devices`. torch_options.py has the options."""

    name = "torch"
    platforms = ("pytorch", "pytorch_libtorch", "libtorch", "torch_aoti")
    artefacts = ("model.pt", "model.pt2")

    def find(self, directory: Path) -> Path | None:
        there = [path for name in self.artefacts if (path := directory / name).is_file()]
        if len(there) > 1:
            raise LoadError("two torch models in one version, model.pt and model.pt2: remove one")
        if there:
            try:
                torch_archive.classify(there[0])
            except IncompleteArtefact:
                pass  # `complete` says what is missing while the copy goes on
            return there[0]
        for name in _PICKLED:
            if (directory / name).is_file():
                return self._refuse(directory / name)
        return None

    def complete(self, artefact: Path) -> str | None:
        return torch_archive.missing(artefact)

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def open(self, request: OpenRequest) -> Model:
        archive = torch_archive.classify(request.artefact)
        options = TorchOptions.read(request.options, archive.kind, request.artefact.name)
        torch = _torch()
        if archive.kind is Kind.TORCHSCRIPT:
            from inferd.backends.torch.script import ScriptModel

            return ScriptModel(torch, request, archive, options)
        if archive.kind is Kind.EXPORTED:
            from inferd.backends.torch.export import ExportedModel

            return ExportedModel(torch, request, options)
        from inferd.backends.torch.aoti import AotiModel

        return AotiModel(torch, request)

    def devices(self) -> Sequence[str]:
        torch = _torch()
        if not torch.cuda.is_available():
            return ("cpu",)
        return (*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu")

    @staticmethod
    def _refuse(path: Path) -> None:
        """Refuses what torch.save writes; a file that is TorchScript under another name is told its name."""
        kind = torch_archive.classify(path).kind
        raise LoadError(
            f"{path.name} is a {kind.value}: name it {'model.pt' if kind is Kind.TORCHSCRIPT else 'model.pt2'}"
        )


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise MissingFramework("torch", "torch") from None
        raise LoadError(f"torch cannot be imported: {error}") from None
    except (ImportError, OSError) as error:
        raise LoadError(f"torch cannot be imported: {error}") from None
    return torch
