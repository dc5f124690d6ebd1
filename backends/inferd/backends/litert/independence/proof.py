"""From a LiteRT model to the finding. The walker is imported when the first model is analysed."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.backends.api import Independence, Signature
from inferd.backends.litert.flatbuffer import Bytes
from inferd.backends.litert.graph import LiteGraph

_MOST_SECONDS = 20.0


def analyse_model(
    graph: LiteGraph,
    content: Bytes,
    subgraph: int,
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    signature: Signature,
) -> Independence:
    """Whether the rows of the signature's outputs are independent. `inputs`, `outputs`: tensors of the subgraph, by
    name. Never raises for what the file holds."""
    from inferd.backends.independence.budget import AnalysisBudget
    from inferd.backends.independence.sizes import N, NotUnderstood, Refusal, Size, size_of
    from inferd.backends.independence.values import Value, conclusion, constant, rows
    from inferd.backends.litert.independence.walker import Stopped, Walk

    progress = AnalysisBudget(_MOST_SECONDS, NotUnderstood)
    values: dict[int, Value] = {}
    try:
        for spec in signature.inputs:
            if spec.shape is None:
                raise Stopped(f"input {spec.name!r} has no known rank")
            sizes: list[Size] = [progress.fresh() if size < 0 else size_of(size) for size in spec.shape]
            batched = spec.shape[:1] == (-1,)
            values[inputs[spec.name]] = rows([N, *sizes[1:]], 0) if batched else constant(sizes)
        given = [values[index] for index in graph.subgraphs[subgraph].inputs]
        walk = Walk(graph, content, progress)
        found = walk.outputs(subgraph, given)
        finding = conclusion({spec.name: found[outputs[spec.name]] for spec in signature.outputs})
        if finding.proven and walk.refused:
            cause = walk.refused[0]
            return Independence(False, "", cause.operator, cause.node, cause.reason, cause.understood)
        return finding
    except Stopped as stopped:
        return Independence(False, reason=str(stopped), understood=False)
    except Refusal as refusal:
        return Independence(False, reason=str(refusal), understood=refusal.understood)
    except RecursionError:
        return Independence(False, reason="the graph nests too deeply", understood=False)
