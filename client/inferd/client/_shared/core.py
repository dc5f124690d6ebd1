"""The core of both clients, without network access: encodes requests, decodes answers, translates errors, decides about
retries."""

from __future__ import annotations

import math
import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import grpc

from inferd.client._shared.arguments import check_choice, mistyped
from inferd.client._shared.config import RetryPolicy
from inferd.client._shared.diagnosis import NEVER_SENT
from inferd.client._shared.errors import (
    InferdError,
    InvalidInput,
    InvalidResponse,
    MessageTooLarge,
    RequestError,
    error_class,
)
from inferd.client._shared.models import ModelMetadata
from inferd.client._shared.prediction import Array, Prediction
from inferd.wire.native import decode_response, encode_request

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"

# gRPC's message when a message is larger than the side that is named allows.
_TOO_LARGE = re.compile(r"(CLIENT|SERVER): (Received|Sent) message larger than max \((\d+) vs\. (\d+)\)")
# gRPC's messages when the call was cancelled on this side: by the caller, or because the channel was closed.
_CANCELLED_HERE = ("Locally cancelled", "Channel closed")

Metadata = tuple[tuple[str, str | bytes], ...]
MetadataLike = Mapping[str, str] | Sequence[tuple[str, str | bytes]]
_KEY = re.compile(r"[0-9a-z_.-]+")  # keys of metadata that gRPC accepts


class Call:
    """One request without its inputs: the model, and how it is called. Raises InvalidInput for a wrong argument."""

    __slots__ = ("label", "model", "outputs", "priority", "queue_timeout_us", "request_id", "signature", "version")

    def __init__(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        request_id: str = "",
        priority: int = 0,
        queue_timeout: float | None = None,
    ) -> None:
        try:
            if not model:
                raise InvalidInput(f"model is {model!r}; expected a name")
            check_choice(version, label)
            if priority < 0:
                raise InvalidInput(f"priority is {priority}; expected 1 (first) or more, 0 for the model's default")
            if queue_timeout is not None and not 0 < queue_timeout < math.inf:
                raise InvalidInput(
                    f"queue_timeout is {queue_timeout}; expected seconds above 0, None: until the deadline"
                )
            self.outputs = () if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
            self.queue_timeout_us = 0 if queue_timeout is None else max(1, min(round(queue_timeout * 1e6), 2**63))
        except TypeError as error:
            given = {"priority": priority, "queue_timeout": queue_timeout, "outputs": outputs}
            raise InvalidInput(mistyped(given) or str(error)) from None
        self.model = model
        self.version = version
        self.label = label
        self.signature = signature
        self.request_id = request_id
        self.priority = priority

    @property
    def key(self) -> tuple[str, int | None, str | None]:
        """The key of the model's metadata in the MetadataCache."""
        return self.model, self.version, self.label

    def encode(self, inputs: Mapping[str, Array], request_id: str | None = None) -> bytes:
        """The encoded PredictRequest. `request_id` replaces the call's own id. Raises InvalidInput for an array that
        cannot be sent."""
        try:
            return encode_request(
                self.model,
                inputs,
                version=self.version,
                label=self.label,
                signature=self.signature or "",
                outputs=self.outputs,
                request_id=self.request_id if request_id is None else request_id,
                priority=self.priority,
                queue_timeout_us=self.queue_timeout_us,
            )
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            names = ("model", "version", "label", "signature", "request_id", "priority", "outputs")
            wrong_type = mistyped({name: getattr(self, name) for name in names})
            raise InvalidInput(f"request to {self.model!r}: {wrong_type or error}") from error


def decode(message: bytes) -> Prediction:
    """The prediction in an encoded PredictResponse. Raises InvalidResponse."""
    try:
        found = decode_response(message)
    except (ValueError, ImportError) as error:
        raise InvalidResponse(f"the answer cannot be read: {error}") from error
    return Prediction(found.model_name, found.version, found.signature, found.outputs, found.request_id)


def request_error(failure: grpc.RpcError, model: str = "", request_id: str = "", attempts: int = 1) -> RequestError:
    """The error of this package for an error of gRPC."""
    code: grpc.StatusCode = failure.code()
    details = failure.details() or code.name.lower().replace("_", " ")
    accepted: bool | None = None
    retry_after: float | None = None
    for key, value in failure.trailing_metadata() or ():
        if key == "inferd-accepted":
            accepted = value != "0"
        elif key == "grpc-retry-pushback-ms":
            retry_after = _pushback(value)
    if code is grpc.StatusCode.CANCELLED and accepted is None and not details.startswith(_CANCELLED_HERE):
        # This side did not cancel the call. The gRPC core of a stopping server ends its last calls in this way.
        code, details = grpc.StatusCode.UNAVAILABLE, f"the server ended the call: {details}"
    too_large = _TOO_LARGE.search(details) if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    if too_large is not None:
        text = _too_large(*too_large.groups())
        return MessageTooLarge(code, text, model=model, request_id=request_id, accepted=accepted, attempts=attempts)
    if accepted is None and code is grpc.StatusCode.UNAVAILABLE and details.startswith(NEVER_SENT):
        accepted = False
    return error_class(code)(
        code, details, model=model, request_id=request_id, accepted=accepted, retry_after=retry_after, attempts=attempts
    )


def _too_large(side: str, way: str, size: str, limit: str) -> str:
    what = "answer" if (side == "CLIENT") is (way == "Received") else "request"
    if side == "SERVER":
        return (
            f"the {what} has {size} bytes, and the server allows {limit} in one message (its setting grpc.max_message)"
        )
    option = "grpc.max_receive_message_length" if way == "Received" else "grpc.max_send_message_length"
    return f"the {what} has {size} bytes, and this client allows {limit} in one message (options: {option})"


def _pushback(value: str | bytes) -> float:
    """Seconds of a server's pushback, given in milliseconds. By gRPC's rule, a negative value or anything that is not a
    number means "do not retry": `inf`."""
    try:
        wait = int(value)
    except ValueError:
        return math.inf
    return wait / 1000 if wait >= 0 else math.inf


_MIN_ATTEMPT = 0.01  # seconds that an attempt needs at least
_FOR_EVER = 1e9  # seconds; gRPC's clock cannot represent much more, and calls with a later deadline fail at once


class Deadline:
    """The timeout of one call, shared by all its attempts. `timeout` is in seconds; math.inf means no limit. Raises
    InvalidInput for a wrong timeout.

    timeout   the whole timeout in seconds, None for no limit: the first attempt uses it without reading the clock again
    """

    __slots__ = ("_at", "_clock", "timeout")

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            if not timeout >= 0:
                raise InvalidInput(f"timeout is {timeout}; expected seconds of 0 or more, math.inf for none")
            if timeout >= _FOR_EVER:
                timeout = math.inf
            self._at = clock() + timeout
        except TypeError:
            raise InvalidInput(f"timeout is {timeout!r}; expected seconds of 0 or more, math.inf for none") from None
        self._clock = clock
        self.timeout = None if timeout == math.inf else timeout

    def remaining(self) -> float | None:
        """The seconds that are left, 0 or more; None for no limit. gRPC takes this value as a timeout."""
        return None if self._at == math.inf else max(0.0, self._at - self._clock())


class Attempts:
    """Decides after each failure of one request whether the request is sent again. Not thread-safe.

    count   attempts so far, including the one that `pause_after` has just allowed
    """

    __slots__ = ("_deadline", "_policy", "_random", "_remaining", "count")

    def __init__(self, policy: RetryPolicy, deadline: Deadline, rand: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._deadline = deadline
        self._random = rand
        self._remaining = deadline.timeout  # at the start of the last attempt
        self.count = 1

    def pause_after(self, error: RequestError) -> float | None:
        """The seconds to wait before the next attempt; None if the error is final."""
        policy = self._policy
        if self.count >= policy.attempts or error.code not in policy.codes:
            return None
        if error.retry_after is not None:
            pause = error.retry_after
        else:
            bound = min(policy.max_backoff, policy.backoff * policy.multiplier ** (self.count - 1))
            # Never close to 0: gRPC needs a moment before it connects again.
            pause = bound * (0.5 + 0.5 * self._random())
        remaining = self._deadline.remaining()
        if pause == math.inf or (remaining is not None and 1.05 * pause + self._needs(remaining, pause) >= remaining):
            return None
        if remaining is not None:
            self._remaining = remaining - pause
        self.count += 1
        return pause

    def _needs(self, remaining: float, pause: float) -> float:
        """The seconds that the next attempt must have: as many as the last attempt and the pause together, at most a
        tenth of the timeout. An attempt with less time would probably end with DEADLINE_EXCEEDED, which would hide the
        reason of the last failure."""
        timeout, began = self._deadline.timeout, self._remaining
        if timeout is None or began is None:
            return _MIN_ATTEMPT
        return max(_MIN_ATTEMPT, min(began - remaining + pause, timeout / 10))


# Seconds for the metadata that decides about a retry: it must not use up the timeout of the call.
METADATA_TIMEOUT = 5.0


class MetadataCache:
    """Metadata by (model, version, label). When it is full, the least recently used entry is dropped.

    Thread-safe without a lock, because each step is one atomic operation of the dictionary; an entry that another
    thread removes in between is ignored.
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._known: OrderedDict[tuple[str, int | None, str | None], ModelMetadata | None] = OrderedDict()

    def get(self, key: tuple[str, int | None, str | None]) -> ModelMetadata | None:
        found = self._known.get(key)
        if found is not None:
            try:
                self._known.move_to_end(key)
            except KeyError:
                pass
        return found

    def put(self, key: tuple[str, int | None, str | None], metadata: ModelMetadata) -> None:
        self._known[key] = metadata
        while len(self._known) > self._size:
            try:
                self._known.popitem(last=False)
            except KeyError:
                return


def metadata_pairs(given: MetadataLike | None) -> Metadata:
    """The metadata of a call as gRPC takes it. Raises InvalidInput for metadata that gRPC would refuse."""
    if not given:
        return ()
    try:
        pairs = [(key.lower(), value) for key, value in (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError, AttributeError):
        raise InvalidInput("metadata: expected pairs of a key and a value, both text") from None
    for key, value in pairs:
        if not _KEY.fullmatch(key):
            raise InvalidInput(f"metadata {key!r}: a key is made of letters, digits, '-', '_' and '.'")
        if not isinstance(value, str | bytes) or isinstance(value, bytes) != key.endswith("-bin"):
            raise InvalidInput(f"metadata {key!r}: bytes belong to keys that end in '-bin', text to all others")
        if isinstance(value, str) and not fits_header(value):
            raise InvalidInput(
                f"metadata {key!r}: expected printable ASCII characters; others travel under '{key}-bin'"
            )
    return tuple(pairs)


def fits_header(text: str) -> bool:
    """Whether gRPC accepts this text as the value of a header."""
    return text.isascii() and text.isprintable()


def authorization(token: str | Callable[[], str] | None) -> Metadata:
    """The token as a bearer header. A function is called for every call, so that tokens can be replaced. Raises
    InvalidInput for a token that cannot be sent; the message does not contain the token."""
    if token is None:
        return ()
    text = token() if callable(token) else token
    if not isinstance(text, str) or not fits_header(text):
        raise InvalidInput("token: expected text of printable ASCII characters, got something else")
    return (("authorization", f"Bearer {text}"),)


def is_final_refusal(error: InferdError) -> bool:
    """Whether the server has no metadata at all (an older server), so that asking again is of no use."""
    return isinstance(error, RequestError) and error.code is grpc.StatusCode.UNIMPLEMENTED
