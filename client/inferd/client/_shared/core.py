"""What the sync and the async client share, without any I/O: requests to bytes, bytes to answers, errors to types, and
the decision whether to try again."""

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
from inferd.client._shared.errors import InferdError, InvalidInput, InvalidResponse, RequestError, error_class
from inferd.client._shared.models import ModelMetadata
from inferd.client._shared.prediction import Array, Prediction
from inferd.wire.native import decode_response, encode_request

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"

# gRPC's words where no connection stood, so that nothing can have been sent (pick_first and round_robin word it apart).
_NEVER_SENT = ("failed to connect", "connections to all backends failing", "DNS resolution failed")
# And where the call was cancelled on this side: by its caller, or with its channel.
_CANCELLED_HERE = ("Locally cancelled", "Channel closed")

Metadata = tuple[tuple[str, str | bytes], ...]
MetadataLike = Mapping[str, str] | Sequence[tuple[str, str | bytes]]
_KEY = re.compile(r"[0-9a-z_.-]+")  # of metadata, as gRPC takes it


class Call:
    """One request without its inputs: which model answers, and how. Raises InvalidInput for a bad argument."""

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
        """What its metadata is remembered under."""
        return self.model, self.version, self.label

    def encode(self, inputs: Mapping[str, Array], request_id: str | None = None) -> bytes:
        """A PredictRequest. Raises InvalidInput for an array that cannot travel."""
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
            told = mistyped({name: getattr(self, name) for name in ("model", "version", "label", "signature")})
            told = told or mistyped({"request_id": self.request_id, "priority": self.priority, "outputs": self.outputs})
            raise InvalidInput(f"request to {self.model!r}: {told or error}") from error


def decode(message: bytes) -> Prediction:
    """A PredictResponse. Raises InvalidResponse."""
    try:
        found = decode_response(message)
    except (ValueError, ImportError) as error:
        raise InvalidResponse(f"the answer cannot be read: {error}") from error
    return Prediction(found.model_name, found.version, found.signature, found.outputs, found.request_id)


def request_error(failure: grpc.RpcError, model: str = "", request_id: str = "", attempts: int = 1) -> RequestError:
    """The typed error for what gRPC raised."""
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
        # Nobody here did that: the core of a server that stops ends so what reached it last.
        code, details = grpc.StatusCode.UNAVAILABLE, f"the server ended the call: {details}"
    if accepted is None and code is grpc.StatusCode.UNAVAILABLE and details.startswith(_NEVER_SENT):
        accepted = False
    return error_class(code)(
        code, details, model=model, request_id=request_id, accepted=accepted, retry_after=retry_after, attempts=attempts
    )


def _pushback(value: str | bytes) -> float:
    """gRPC's rule: what is no number of milliseconds, or a negative one, says "not again"."""
    try:
        wait = int(value)
    except ValueError:
        return math.inf
    return wait / 1000 if wait >= 0 else math.inf


_LEAST = 0.01  # seconds that an attempt needs at least
_FOR_EVER = 1e9  # seconds; gRPC's own clock ends not far beyond, and a call past its end fails at once


class Deadline:
    """A timeout that runs over all attempts of one call."""

    __slots__ = ("_at", "_clock", "whole")

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
        self.whole = None if timeout == math.inf else timeout
        """What `left` says at the beginning, for the first attempt: no second look at the clock."""

    def left(self) -> float | None:
        """Seconds left, 0 or more; None without a deadline. What gRPC takes as a timeout."""
        return None if self._at == math.inf else max(0.0, self._at - self._clock())


class Attempts:
    """Decides, failure by failure, whether one request is sent again, and counts.

    `pause_after` gives the seconds to wait before the next attempt, None when the error is final.
    """

    __slots__ = ("_deadline", "_left", "_policy", "_random", "count")

    def __init__(self, policy: RetryPolicy, deadline: Deadline, rand: Callable[[], float] = random.random) -> None:
        self._policy = policy
        self._deadline = deadline
        self._random = rand
        self._left = deadline.whole  # when the last attempt began
        self.count = 1

    def pause_after(self, error: RequestError) -> float | None:
        policy = self._policy
        if self.count >= policy.attempts or error.code not in policy.codes:
            return None
        if error.retry_after is not None:
            pause = error.retry_after
        else:
            bound = min(policy.max_backoff, policy.backoff * policy.multiplier ** (self.count - 1))
            # Never near 0: gRPC itself needs a moment before it connects again.
            pause = bound * (0.5 + 0.5 * self._random())
        left = self._deadline.left()
        if pause == math.inf or (left is not None and 1.05 * pause + self._needs(left, pause) >= left):
            return None
        if left is not None:
            self._left = left - pause
        self.count += 1
        return pause

    def _needs(self, left: float, pause: float) -> float:
        """Seconds that an attempt must have: as many as the last one and the pause took, up to a tenth of the whole
        timeout. At the deadline's edge its end would hide the last one's reason behind DEADLINE_EXCEEDED."""
        whole, began = self._deadline.whole, self._left
        if whole is None or began is None:
            return _LEAST
        return max(_LEAST, min(began - left + pause, whole / 10))


# Seconds for the metadata that decides about a retry: it must not use up the timeout of the call.
METADATA_TIMEOUT = 5.0


class MetadataCache:
    """Metadata by (model, version, label), least recently used out first. Thread-safe: each step is one C call."""

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
    """Call metadata as gRPC takes it. Raises InvalidInput for what gRPC refuses."""
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
    """Whether gRPC takes this text as the value of a header."""
    return text.isascii() and text.isprintable()


def authorization(token: str | Callable[[], str] | None) -> Metadata:
    """The token as a bearer header; a function is asked anew for every call, so that tokens can rotate. Raises
    InvalidInput, without the token, for one that cannot travel."""
    if token is None:
        return ()
    text = token() if callable(token) else token
    if not isinstance(text, str) or not fits_header(text):
        raise InvalidInput("token: expected text of printable ASCII characters, got something else")
    return (("authorization", f"Bearer {text}"),)


def is_final_refusal(error: InferdError) -> bool:
    """Whether metadata cannot be had at all (an older server), rather than not now."""
    return isinstance(error, RequestError) and error.code is grpc.StatusCode.UNIMPLEMENTED
