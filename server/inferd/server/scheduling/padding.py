"""Padding to declared sizes, so that requests of different lengths may share a batch. Pure.

A padded input has exactly one variable dimension besides the batch axis. Zeros (or empty strings) are appended along it
up to the next declared size. The size depends only on the request itself, so that its answer does not depend on the
other requests of the batch. Outputs keep the padded size. An input longer than the largest size is not padded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from inferd.backends.api import Array, LoadError, Signature


def unknown_names(sizes: Mapping[str, Sequence[int]], signatures: Sequence[Signature]) -> list[str]:
    """Names in `sizes` that are no input of any signature. Not an error: sizes may be set for all models of a
    server."""
    known = {spec.name for signature in signatures for spec in signature.inputs}
    return [name for name in sizes if name not in known]


class Padding:
    """The padded inputs of one signature. Immutable."""

    def __init__(self, signature: Signature, sizes: Mapping[str, Sequence[int]]) -> None:
        """`sizes`: by input name; names that the signature does not have are ignored (another signature may have them).

        Raises LoadError for an input without exactly one variable dimension besides the first, or for a size below 1.
        """
        self._rules: dict[str, tuple[int, tuple[int, ...]]] = {}
        for spec in signature.inputs:
            if spec.name not in sizes:
                continue
            wanted = tuple(sorted(set(sizes[spec.name])))
            axes = [axis for axis, size in enumerate(spec.shape or ()) if size == -1 and axis > 0]
            if len(axes) != 1:
                raise LoadError(
                    f"batching.padding: input {spec.name!r} of signature {signature.name!r} must have one variable "
                    f"dimension besides the batch axis, its shape is {list(spec.shape) if spec.shape else spec.shape}"
                )
            if not wanted or wanted[0] < 1:
                raise LoadError(f"batching.padding.{spec.name}: expected sizes of at least 1, got {list(wanted)}")
            self._rules[spec.name] = (axes[0], wanted)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __contains__(self, name: str) -> bool:
        return name in self._rules

    def smallest(self, name: str) -> int | None:
        """The smallest declared size of an input; None where it is not padded."""
        rule = self._rules.get(name)
        return rule[1][0] if rule else None

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after padding. Both shapes include the batch axis."""
        rule = self._rules.get(name)
        if rule is None:
            return shape
        axis, sizes = rule
        at = bisect_left(sizes, shape[axis])
        if at == len(sizes):
            return shape
        return (*shape[:axis], sizes[at], *shape[axis + 1 :])

    def fill(self, name: str, parts: Sequence[Array], into: Array) -> None:
        """Writes the rows of `parts` one after the other into `into`, which has the padded shape."""
        axis, _ = self._rules[name]
        into[...] = b"" if into.dtype == object else 0
        start = 0
        for part in parts:
            stop = start + part.shape[0]
            into[(slice(start, stop), *(slice(None),) * (axis - 1), slice(0, part.shape[axis]))] = part
            start = stop
