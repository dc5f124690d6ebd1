"""The torch backend: `model.pt` (TorchScript) and `model.pt2` (torch.export or AOTInductor).

The content of a file decides its format, not its name. Pickled files are refused and never loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from inferd.backends.api import IncompleteArtefact, LoadError, MissingFramework, Model, OpenRequest
from inferd.backends.quiet import be_quiet
from inferd.backends.torch import archive as torch_archive
from inferd.backends.torch.archive import ArchiveFormat
from inferd.backends.torch.options import TorchOptions

_PICKLED = ("model.pth", "model.ckpt", "model.bin", "model.pkl")


class TorchBackend:
    """Opens torch models. Thread-safe; imports torch only in `open` and `devices`. The options of a model are described
    in `inferd.backends.torch.options`.

    Of torch's functions that are used here, one is not for two threads at once: torch.export.load keeps what it reads
    in a variable of its module, and the second call fails ("_CURRENT_DESERIALIZER is already set"). A lock of the
    backend serialises it. These were tried with eight threads at once and need none: torch.jit.load and freeze,
    torch.export.save, ExportedProgram.module, and runs. torch.set_num_threads counts for the calling thread alone.
    """

    name = "torch"
    platforms = ("pytorch", "pytorch_libtorch", "libtorch", "torch_aoti")
    artefacts = ("model.pt", "model.pt2")

    def __init__(self) -> None:
        self._export_load = threading.Lock()

    def find(self, directory: Path) -> Path | None:
        found = [path for name in self.artefacts if (path := directory / name).is_file()]
        if len(found) > 1:
            raise LoadError("two torch models in one version, model.pt and model.pt2: remove one")
        if found:
            try:
                torch_archive.classify(found[0])
            except IncompleteArtefact:
                pass  # a copy may be under way: `complete` says what is missing
            return found[0]
        for name in _PICKLED:
            if (directory / name).is_file():
                self._refuse(directory / name)
        return None

    def complete(self, artefact: Path) -> str | None:
        return torch_archive.missing(artefact)

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def open(self, request: OpenRequest) -> Model:
        archive = torch_archive.classify(request.artefact)
        options = TorchOptions.read(request.options, archive.format, request.artefact.name)
        if archive.format is ArchiveFormat.AOTI and "aoti" not in request.allow:
            raise LoadError(
                f"{request.artefact.name} is an {archive.format.value}: its compiled library would run in the server; "
                "it is loaded only where repository.allow, in the server's own configuration, names aoti"
            )
        torch = _torch()
        if archive.format is ArchiveFormat.TORCHSCRIPT:
            from inferd.backends.torch.script import ScriptModel

            return ScriptModel(torch, request, archive, options)
        if archive.format is ArchiveFormat.EXPORTED:
            from inferd.backends.torch.export import ExportedModel

            return ExportedModel(torch, request, options, self._export_load)
        from inferd.backends.torch.aoti import AotiModel

        return AotiModel(torch, request)

    def devices(self) -> Sequence[str]:
        torch = _torch()
        if not torch.cuda.is_available():
            return ("cpu",)
        return (*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu")

    @staticmethod
    def _refuse(path: Path) -> NoReturn:
        """Raises LoadError: files that torch.save writes are never loaded, and a file that could be served under
        another name must be renamed."""
        found = torch_archive.classify(path).format
        name = "model.pt" if found is ArchiveFormat.TORCHSCRIPT else "model.pt2"
        raise LoadError(f"{path.name} is a {found.value}: name it {name}")


def _torch() -> Any:
    be_quiet()
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise MissingFramework("torch", "torch") from None
        raise LoadError(f"torch cannot be imported: {error}") from None
    except (ImportError, OSError) as error:
        raise LoadError(f"torch cannot be imported: {error}") from None
    return torch
