"""inferd: an inference server for ONNX, torch, TensorFlow and other models, and its clients.

    from inferd import Client          the synchronous client; AsyncClient for asyncio
    inferd.__version__                 the version of the installed distribution

The server is `inferd.server`, its command line `inferd` or `python -m inferd`.
"""

# In the source tree `inferd` is a namespace of four folders without a file of its own. This one is `inferd/__init__.py`
# of what is installed (docs/decisions/namespace.md). It imports nothing until a name is asked for: a server must not
# pay for the client.

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferd.client import AsyncClient, Client

    __version__: str

# The four folders where they are installed in place, and what other distributions add.
__path__ = extend_path(__path__, __name__)  # noqa: F821  (set by the import system)
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("inferd")
    if name in ("AsyncClient", "Client"):
        from inferd import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
