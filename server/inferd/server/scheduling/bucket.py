"""Bucket keys: requests with equal keys may share a batch. Pure.

For each input of the signature, in order, the key holds: None where the request leaves it out; the shape without the
batch axis where it has one; shape and bytes where it has none, because a batch holds only one value of such an input (a
sampling rate, a threshold). The signature is not part of the key: each signature has its own queue.

A request for which the proof that rows are independent does not hold runs alone: one with a dimension of size 0, or
one in which dimensions differ that the proof takes as equal.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b

from inferd.backends.api import Array, Signature
from inferd.server.errors import InvalidRequest
from inferd.server.scheduling.padding import Padding

_DIGEST_ABOVE = 256
ALONE: Hashable = "alone"
"""The key of requests that run one at a time."""


def batched_inputs(signature: Signature) -> tuple[str, ...]:
    """The inputs that may have a batch axis: their first dimension is variable, or their rank is unknown."""
    return tuple(spec.name for spec in signature.inputs if spec.shape is None or spec.shape[:1] == (-1,))


def contents(array: Array) -> Hashable:
    """A value that is equal for equal arrays of one dtype. Long contents are hashed, because keys are kept in the
    queue."""
    if array.dtype == object:
        items = tuple(array.ravel().tolist())
        if 8 * len(items) + sum(map(len, items)) <= _DIGEST_ABOVE:
            return array.shape, items
        digest = blake2b(digest_size=20)
        for item in items:
            data = item if isinstance(item, bytes) else str(item).encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return array.shape, digest.digest()
    if array.nbytes <= _DIGEST_ABOVE:
        return array.shape, array.tobytes()
    return array.shape, blake2b(array.tobytes(), digest_size=20).digest()


class BucketKeys:
    """Makes the keys of one signature. Immutable, thread-safe."""

    def __init__(self, signature: Signature, padding: Padding, equal: Sequence[Sequence[tuple[str, int]]] = ()) -> None:
        """`equal`: groups of dimensions, as (input, axis); where they differ the request runs alone."""
        self._signature = signature
        self._equal = tuple(map(tuple, equal))
        self.batched = frozenset(batched_inputs(signature))
        self._order = tuple((spec.name, spec.name in self.batched) for spec in signature.inputs)
        self._padding = padding
        # Most models have one input: its shape is the key.
        only = signature.inputs[0] if len(signature.inputs) == 1 else None
        alone = only is not None and only.shape and not only.optional and self.batched and not padding and not equal
        self._only = only.name if only is not None and alone else None

    def requiring(self, equal: Sequence[Sequence[tuple[str, int]]]) -> BucketKeys:
        """The same keys, for a proof that takes these dimensions as equal."""
        return BucketKeys(self._signature, self._padding, equal)

    def of(self, inputs: Mapping[str, Array]) -> tuple[int, Hashable]:
        """The rows and the key of a request. 0 rows, or the key ALONE: the request runs alone.

        Raises InvalidRequest when the inputs have different numbers of rows.
        """
        if self._only is not None:
            shape = inputs[self._only].shape
            return shape[0], ALONE if 0 in shape else shape[1:]
        rows = -1
        first = ""
        key: list[Hashable] = []
        for name, batched in self._order:
            array = inputs.get(name)
            if array is None:
                key.append(None)
            elif batched and array.ndim:
                shape = array.shape
                if rows < 0:
                    rows, first = shape[0], name
                elif shape[0] != rows:
                    raise InvalidRequest(
                        f"input {name!r}: expected {rows} rows (first dimension) as in input {first!r}, "
                        f"got shape {list(shape)}"
                    )
                key.append(self._padding.shape(name, shape)[1:] if self._padding else shape[1:])
            else:
                key.append(contents(array))
        if rows > 0 and not self._provable(inputs):
            # It is run whole, too. Rows without any elements keep their number: however many there are, they are small.
            return (0 if any(array.size for array in inputs.values()) else rows), ALONE
        return max(rows, 0), tuple(key)

    def _provable(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the sizes are such that the proof holds for them."""
        padding = self._padding
        shapes = {name: padding.shape(name, a.shape) if padding else a.shape for name, a in inputs.items()}
        for array in inputs.values():
            if 0 in array.shape:
                return False
        for group in self._equal:
            sizes = {shapes[name][axis] for name, axis in group if name in shapes and axis < len(shapes[name])}
            if len(sizes) > 1:
                return False
        return True

    def by_shape(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the rows and the key of these inputs depend on their shapes only, not on their values."""
        return all(name in self.batched and array.ndim for name, array in inputs.items())
