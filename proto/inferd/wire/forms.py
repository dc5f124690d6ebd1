"""Forms: clients repeat themselves, so a message often equals an earlier one in all but its tensors' data and its id.

A form is what such messages share. Once a recogniser has taken a message, the next one of its form is read by comparing
the shared bytes and viewing the data; every byte is either compared or part of what may vary, so the result is what the
recogniser would have said. Messages with strings, or with no data at all, have no form.

Forms that mean the same (their ids differ in length, say) are of one kind: what is known of a request by its kind needs
no second look, and messages of one kind can be read together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np

from inferd.wire.reader import varint
from inferd.wire.tensors import Array, valid_bool

_KEPT = 256  # forms
_SAME_SIZE = 8  # forms of one size: they are tried in turn
_SHARED = 4096  # longest shared part: forms of any length would be a way to fill the memory

F = TypeVar("F")
_HEAD = bytes.__basicsize__ - 1  # where the bytes of a `bytes` lie in its memory, which begins at a multiple of 16
_ndarray = np.ndarray


class Kind(Generic[F]):
    """What messages say besides their data and id. Two messages say the same exactly if their kind is one object, as
    long as it is remembered.

    facts     as whoever has learned the first form put it
    tensors   name, shape, element type; in the order of the inputs
    """

    __slots__ = ("_bools", "facts", "tensors")

    def __init__(self, facts: F, tensors: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]) -> None:
        self.facts = facts
        self.tensors = tensors
        self._bools = tuple(name for name, _, dtype in tensors if dtype == np.bool_)

    def valid(self, inputs: Mapping[str, Array]) -> bool:
        """Whether every BOOL is 0 or 1."""
        for name in self._bools:  # noqa: SIM110 - a generator would cost more than the check
            if not valid_bool(inputs[name]):
                return False
        return True

    def joined(self, messages: Sequence[tuple[Form[F], bytes]]) -> dict[str, Array] | None:
        """The arrays of several messages of this kind, each with its form: rows one after the other, aligned and
        read-only. None where a BOOL is neither 0 nor 1. The tensors have a first dimension."""
        if len(messages) == 1:
            form, message = messages[0]
            return form.aligned(message)
        inputs: dict[str, Array] = {}
        for index, (name, shape, dtype) in enumerate(self.tensors):
            data = b"".join([message[form.cuts[index]] for form, message in messages])
            inputs[name] = _ndarray((len(messages) * shape[0], *shape[1:]), dtype, data)
        return inputs if self.valid(inputs) else None


class Form(Generic[F]):
    """What messages of one size share: every byte outside the tensors' data and the id.

    kind         what they say
    cuts         where the data of each tensor lies
    nbytes       their size
    start        what they begin with; `parts` are the other bytes that they share, each with its place
    identified   whether they have an id
    """

    __slots__ = ("_aligned", "_id", "_only", "_tensors", "cuts", "identified", "kind", "nbytes", "parts", "start")

    def __init__(
        self,
        message: bytes,
        kind: Kind[F],
        tensors: list[tuple[int, str, Array]],
        id_at: tuple[int, int] | None,
    ) -> None:
        """`tensors`: where the data begins, name, array; in the order of the inputs."""
        spans = sorted((at, at + array.nbytes) for at, _, array in tensors)
        if id_at is not None:
            spans = sorted([*spans, id_at])
        parts = []
        end = 0
        for start, stop in spans:
            parts.append((end, message[end:start]))
            end = stop
        parts.append((end, message[end:]))
        self.kind = kind
        self.cuts = tuple(slice(at, at + array.nbytes) for at, _, array in tensors)
        self.nbytes = len(message)
        self.start = parts[0][1]
        self.parts = tuple((at, part) for at, part in parts[1:] if part)
        self._id = id_at
        self.identified = id_at is not None
        self._tensors = tuple((name, array.shape, array.dtype, at) for at, name, array in tensors)
        self._only = self._tensors[0] if len(tensors) == 1 else None
        self._aligned = all((_HEAD + at) % array.itemsize == 0 for at, _, array in tensors)

    def fits(self, message: bytes) -> bool:
        """Whether a message of this size has this form."""
        if not message.startswith(self.start):
            return False
        for at, part in self.parts:  # noqa: SIM110 - a generator would cost more than the comparison
            if not message.startswith(part, at):
                return False
        return True

    def inputs(self, message: bytes) -> dict[str, Array] | None:
        """The arrays of a message that fits, as read-only views of it. None where a BOOL is neither 0 nor 1."""
        only = self._only
        if only is not None:
            name, shape, dtype, at = only
            inputs: dict[str, Array] = {name: _ndarray(shape, dtype, message, at)}
        else:
            inputs = {name: _ndarray(shape, dtype, message, at) for name, shape, dtype, at in self._tensors}
        return inputs if self.kind.valid(inputs) else None

    def aligned(self, message: bytes) -> dict[str, Array] | None:
        """As `inputs`, each array aligned as its type asks: a view where it lies so in the message, else a copy."""
        if self._aligned:
            return self.inputs(message)
        inputs: dict[str, Array] = {
            name: _ndarray(shape, dtype, message[cut])
            for (name, shape, dtype, _), cut in zip(self._tensors, self.cuts, strict=True)
        }
        return inputs if self.kind.valid(inputs) else None

    def request_id(self, message: bytes) -> str | None:
        """The id of a message that fits. None where it is not UTF-8."""
        if self._id is None:
            return ""
        try:
            return message[self._id[0] : self._id[1]].decode()
        except UnicodeDecodeError:
            return None


class Forms(Generic[F]):
    """The forms of one kind of message. Thread-safe; bounded: the oldest ones go."""

    def __init__(self, id_tag: int) -> None:
        """`id_tag`: the byte before the length of the id."""
        self._id_tag = bytes((id_tag,))
        self._by_size: dict[int, tuple[Form[F], ...]] = {}
        self._count = 0
        self._lock = Lock()

    def match(self, message: bytes) -> Form[F] | None:
        """The form of a message, None where it is not known."""
        forms = self._by_size.get(len(message))
        if forms is not None:
            for form in forms:
                if message.startswith(form.start) and (not form.parts or form.fits(message)):
                    return form
        return None

    def learn(self, message: bytes, inputs: Mapping[str, Array], request_id: str, facts: F) -> Form[F] | None:
        """Remembers the form of a message that a recogniser has taken and that no known form fits. `inputs` are views
        of it. None where it has no form."""
        shared = len(message) - len(request_id)
        base = np.frombuffer(message, np.uint8).__array_interface__["data"][0] if message else 0
        tensors: list[tuple[int, str, Array]] = []
        for name, array in inputs.items():
            if array.dtype == object or not array.nbytes:
                return None
            at = _address(array) - base
            if at < 0 or at + array.nbytes > len(message) or not array.flags.c_contiguous:
                return None  # no view of the message: its values were converted
            tensors.append((at, name, array))
            shared -= array.nbytes
        if not tensors or shared > _SHARED:
            return None
        id_at = None
        if request_id:
            text = request_id.encode()
            head = self._id_tag + varint(len(text))
            # The field is somewhere; where its bytes are found once only, they are it.
            at = message.find(head + text)
            if message.find(head + text, at + 1) >= 0:
                return None
            at += len(head)
            id_at = (at, at + len(text))
        shapes = tuple((name, array.shape, array.dtype) for _, name, array in tensors)
        with self._lock:
            form = Form(message, self._kind(facts, shapes), tensors, id_at)
            if self._count >= _KEPT:
                oldest = next(iter(self._by_size))
                self._count -= len(self._by_size.pop(oldest))
            known = self._by_size.get(form.nbytes, ())[: _SAME_SIZE - 1]
            self._count += len(known) + 1 - len(self._by_size.get(form.nbytes, ()))
            self._by_size[form.nbytes] = (form, *known)
        return form

    def _kind(self, facts: F, tensors: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]) -> Kind[F]:
        for forms in self._by_size.values():
            for form in forms:
                if form.kind.tensors == tensors and form.kind.facts == facts:
                    return form.kind
        return Kind(facts, tensors)


def _address(array: Array) -> int:
    interface: dict[str, Any] = array.__array_interface__
    address: int = interface["data"][0]
    return address
