"""Requests that differ only in their tensors' data and their id are read by comparison, not parsed again.

Clients repeat themselves, so two caches pay off:

    MessageLayout   what messages of one size share byte for byte: every byte outside the tensors' data and the id
    MessageForm     what such messages mean: model, version or label, signature, outputs; names, types and shapes

Once a recogniser has read a message, the next message with the same layout is read by comparing the shared bytes and
viewing the data. Every byte is either compared or may vary, so the result is the one that the recogniser would give.

Several layouts can have one form (ids of different lengths, for example). What is known about a form need not be
found out again for each request, and messages of one form can be joined into one batch. Messages with STRING tensors,
or with no data at all, have no form.

The client reads responses in the same way; a response's "form" holds its model, version and signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from inferd.wire.reader import varint
from inferd.wire.tensors import Array, valid_bool

_KEPT = 256  # layouts
_SAME_SIZE = 8  # layouts of one message size: they are tried in turn
_SHARED = 4096  # bytes of the longest shared part that is kept: without a bound, callers could fill the memory

F = TypeVar("F")
_HEAD = bytes.__basicsize__ - 1  # offset of the content in a `bytes` object, which begins at a multiple of 16
_ndarray = np.ndarray


class LaidOut(Protocol):
    """Something that holds a message and knows its layout."""

    @property
    def layout(self) -> Any: ...
    @property
    def message(self) -> bytes: ...


class MessageForm(Generic[F]):
    """What a message says besides its data and its id. Immutable.

    Forms are compared by identity: while a form is remembered, two messages say the same if and only if they have the
    same form object.

    facts     the value that was given to `MessageLayouts.learn`
    tensors   name, shape, element type; in the order of the inputs
    checked   there are BOOL tensors, whose values must be looked at
    """

    __slots__ = ("_bools", "checked", "facts", "tensors")

    def __init__(self, facts: F, tensors: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]) -> None:
        self.facts = facts
        self.tensors = tensors
        self._bools = tuple(name for name, _, dtype in tensors if dtype == np.bool_)
        self.checked = bool(self._bools)

    def valid(self, inputs: Mapping[str, Array]) -> bool:
        """Whether every element of every BOOL tensor is 0 or 1."""
        for name in self._bools:  # noqa: SIM110 - a generator would cost more than the check
            if not valid_bool(inputs[name]):
                return False
        return True

    def joined(self, messages: Sequence[LaidOut]) -> dict[str, Array] | None:
        """The arrays of several messages with these tensors, concatenated along the first dimension: aligned and
        read-only. Every tensor must have at least one dimension. None if a BOOL element is neither 0 nor 1."""
        inputs: dict[str, Array] = {}
        for index, (name, shape, dtype) in enumerate(self.tensors):
            data = b"".join([each.message[each.layout.cuts[index]] for each in messages])
            inputs[name] = _ndarray((len(messages) * shape[0], *shape[1:]), dtype, data)
        return inputs if self.valid(inputs) else None


class MessageLayout(Generic[F]):
    """What messages of one size share: every byte outside the tensors' data and the id. Immutable.

    form         what the messages say
    cuts         the slice of the message that holds each tensor's data, in the order of the inputs
    nbytes       size of the messages in bytes
    start        the bytes with which the messages begin
    parts        the other shared bytes, each with its offset
    identified   whether the messages have an id
    plain        the messages have no id and no BOOL tensor: they differ in the data of tensors, and any data is valid
    """

    __slots__ = (
        "_aligned", "_id", "_only", "_tensors", "cuts", "form", "identified", "nbytes", "parts", "plain", "start",
    )  # fmt: skip

    def __init__(
        self,
        message: bytes,
        form: MessageForm[F],
        tensors: list[tuple[int, str, Array]],
        id_at: tuple[int, int] | None,
    ) -> None:
        """`tensors`: offset of the data, name, array; in the order of the inputs. `id_at`: start and end of the id."""
        spans = sorted((at, at + array.nbytes) for at, _, array in tensors)
        if id_at is not None:
            spans = sorted([*spans, id_at])
        parts = []
        end = 0
        for start, stop in spans:
            parts.append((end, message[end:start]))
            end = stop
        parts.append((end, message[end:]))
        self.form = form
        self.cuts = tuple(slice(at, at + array.nbytes) for at, _, array in tensors)
        self.nbytes = len(message)
        self.start = parts[0][1]
        self.parts = tuple((at, part) for at, part in parts[1:] if part)
        self._id = id_at
        self.identified = id_at is not None
        self.plain = id_at is None and not form.checked
        self._tensors = tuple((name, array.shape, array.dtype, at) for at, name, array in tensors)
        self._only = self._tensors[0] if len(tensors) == 1 else None
        self._aligned = all((_HEAD + at) % array.itemsize == 0 for at, _, array in tensors)

    def fits(self, message: bytes) -> bool:
        """Whether a message of `nbytes` bytes has this layout."""
        if not message.startswith(self.start):
            return False
        for at, part in self.parts:  # noqa: SIM110 - a generator would cost more than the comparison
            if not message.startswith(part, at):
                return False
        return True

    def inputs(self, message: bytes) -> dict[str, Array] | None:
        """The arrays of a message with this layout, as read-only views of it. None if a BOOL element is neither 0
        nor 1."""
        only = self._only
        if only is not None:
            name, shape, dtype, at = only
            inputs: dict[str, Array] = {name: _ndarray(shape, dtype, message, at)}
        else:
            inputs = {name: _ndarray(shape, dtype, message, at) for name, shape, dtype, at in self._tensors}
        form = self.form
        return inputs if not form.checked or form.valid(inputs) else None

    def aligned(self, message: bytes) -> dict[str, Array] | None:
        """As `inputs`, with each array aligned for its type: views if all tensors are aligned in the message, else
        copies."""
        if self._aligned:
            return self.inputs(message)
        only = self._only
        if only is not None:
            name, shape, dtype, _ = only
            inputs: dict[str, Array] = {name: _ndarray(shape, dtype, message[self.cuts[0]])}
        else:
            inputs = {
                name: _ndarray(shape, dtype, message[cut])
                for (name, shape, dtype, _), cut in zip(self._tensors, self.cuts, strict=True)
            }
        form = self.form
        return inputs if not form.checked or form.valid(inputs) else None

    def request_id(self, message: bytes) -> str | None:
        """The id of a message with this layout, "" if it has none. None if the id is not UTF-8."""
        if self._id is None:
            return ""
        try:
            return message[self._id[0] : self._id[1]].decode()
        except UnicodeDecodeError:
            return None


class MessageLayouts(Generic[F]):
    """The known layouts of one message type. Thread-safe. Bounded: the oldest ones are forgotten."""

    def __init__(self, id_tag: int) -> None:
        """`id_tag`: the protobuf tag byte of the id field; it stands before the length of the id. 0: no id field."""
        self._id_tag = bytes((id_tag,))
        self._by_size: dict[int, tuple[MessageLayout[F], ...]] = {}
        self._count = 0
        self._lock = Lock()

    def match(self, message: bytes) -> MessageLayout[F] | None:
        """The layout of a message, None if it is not known."""
        layouts = self._by_size.get(len(message))
        if layouts is not None:
            for layout in layouts:
                if message.startswith(layout.start) and (not layout.parts or layout.fits(message)):
                    return layout
        return None

    def learn(self, message: bytes, inputs: Mapping[str, Array], request_id: str, facts: F) -> MessageLayout[F] | None:
        """Remembers the layout of a message that a recogniser has read and that no known layout fits.

        `inputs` are views of the message. `facts` is everything else that the message says; it is compared with `==`,
        and messages with equal facts and equal tensors get the same form. None if the message can have no layout:
        a STRING or empty tensor, converted values, more than 4 KiB of shared bytes, an id that occurs twice.
        """
        shared = len(message) - len(request_id)
        base = np.frombuffer(message, np.uint8).__array_interface__["data"][0] if message else 0
        tensors: list[tuple[int, str, Array]] = []
        for name, array in inputs.items():
            if array.dtype == object or not array.nbytes:
                return None
            at = _address(array) - base
            if at < 0 or at + array.nbytes > len(message) or not array.flags.c_contiguous:
                return None  # the array is no view of the message: its values were converted
            tensors.append((at, name, array))
            shared -= array.nbytes
        if not tensors or shared > _SHARED:
            return None
        id_at = None
        if request_id:
            text = request_id.encode()
            head = self._id_tag + varint(len(text))
            # The recogniser does not say where the id field is. If its bytes occur exactly once, that place is the
            # field.
            at = message.find(head + text)
            if message.find(head + text, at + 1) >= 0:
                return None
            at += len(head)
            id_at = (at, at + len(text))
        shapes = tuple((name, array.shape, array.dtype) for _, name, array in tensors)
        with self._lock:
            layout = MessageLayout(message, self._form_of(facts, shapes), tensors, id_at)
            if self._count >= _KEPT:
                oldest = next(iter(self._by_size))
                self._count -= len(self._by_size.pop(oldest))
            known = self._by_size.get(layout.nbytes, ())[: _SAME_SIZE - 1]
            self._count += len(known) + 1 - len(self._by_size.get(layout.nbytes, ()))
            self._by_size[layout.nbytes] = (layout, *known)
        return layout

    def _form_of(self, facts: F, tensors: tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]) -> MessageForm[F]:
        for layouts in self._by_size.values():
            for layout in layouts:
                if layout.form.tensors == tensors and layout.form.facts == facts:
                    return layout.form
        return MessageForm(facts, tensors)


def _address(array: Array) -> int:
    interface: dict[str, Any] = array.__array_interface__
    address: int = interface["data"][0]
    return address
