"""A Query is a scheduler request: its own constructor must set every field of InferRequest."""

from __future__ import annotations

from inferd.server.inference.service import Query
from inferd.server.scheduling.request import InferRequest


def test_a_query_has_every_field_of_an_infer_request():
    plain = InferRequest("s", {}, lambda _: None)
    query = Query("grpc", "m", None, None, "s", {}, (), 1, None, None, 0, 0.0)
    for slot in InferRequest.__slots__:
        if slot != "on_done":
            assert getattr(query, slot) == getattr(plain, slot), slot
