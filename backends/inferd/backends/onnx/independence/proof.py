"""From a model's bytes to the finding. The walker is imported when the first model is analysed."""

from __future__ import annotations

from collections.abc import Callable

from inferd.backends.api import Independence, Signature
from inferd.backends.onnx.messages import Malformed, Source, Truncated


def analyse_model(content: Callable[[], Source], signature: Signature) -> Independence:
    """Whether the rows of the signature's outputs are independent. Never raises for what the bytes hold."""
    from inferd.backends.onnx.independence.reader import read_program
    from inferd.backends.onnx.independence.walker import analyse

    try:
        program = read_program(content())
    except (Malformed, Truncated) as error:
        return Independence(False, reason=f"the graph cannot be read: {error}", understood=False)
    except OSError as error:
        return Independence(False, reason=f"the graph cannot be read: {error.strerror}", understood=False)
    return analyse(program, signature)
