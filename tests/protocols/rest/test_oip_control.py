"""The control plane of the Open Inference Protocol over REST: health, metadata, statistics, repository; and /docs."""

from __future__ import annotations

import html
import re

import pytest
from support.rest import Rest, tensor

from inferd.server.http.pages import ReadinessLike
from inferd.server.lifecycle.operations.load_overrides import Replacement

INFER = "/v2/models/digits/infer"
X = {"inputs": [tensor("x", [[1.5, 2]])]}


def test_health_and_metadata_are_answered(rest: Rest) -> None:
    assert (rest.get("/v2/health/live").status, rest.get("/v2/health/live").body) == (200, b"")
    assert rest.get("/v2/health/ready").status == 200
    rest.readiness = ReadinessLike(False, "loading")
    assert rest.get("/v2/health/ready").status == 400
    told = rest.get("/v2").json
    assert told["name"] == "inferd"
    assert "binary_tensor_data" in told["extensions"]
    assert rest.get("/v2/models/digits").json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]
    assert rest.get("/v2/models/digits/versions/1").json["versions"] == ["1"]
    assert [rest.get(f"/v2/models/{name}/ready").status for name in ("digits", "nope")] == [200, 400]
    assert rest.get("/v2/models/nope").status == 404


def test_config_and_statistics_have_numbers_as_numbers(rest: Rest) -> None:
    rest.post(INFER, X)
    config = rest.get("/v2/models/digits/config").json
    assert config["max_batch_size"] == 32
    assert config["input"][0]["dims"] == [-1]
    (found,) = rest.get("/v2/models/digits/stats").json["model_stats"]
    assert found["inference_stats"]["success"]["count"] == 1
    assert {each["name"] for each in rest.get("/v2/models/stats").json["model_stats"]} == {"digits", "echo"}


def test_index_load_and_unload(rest: Rest) -> None:
    index = rest.post("/v2/repository/index").json
    assert {"name": "digits", "version": "1", "state": "READY"} in index
    assert len(rest.post("/v2/repository/index", {"ready": True}).json) == 2
    assert rest.post("/v2/repository/index", {"ready": 1}).status == 400
    assert (rest.post("/v2/repository/models/digits/load").status, rest.manager.asked) == (
        200,
        [("load", "digits", None)],
    )
    assert rest.post("/v2/repository/models/digits/unload", {"parameters": {"unload_dependents": True}}).status == 200
    missing = rest.post("/v2/repository/models/nope/load")
    assert missing.status == 500
    assert "failed to load 'nope'" in missing.error
    assert rest.post("/v2/repository/models/digits/load", {"parameters": {"config": "{}"}}).status == 200
    assert rest.manager.asked[-1] == ("load", "digits", None, Replacement("{}"))
    brought = {"config": "{}", "file:1/m": "bW9kZWw="}
    assert "admin.allow_upload" in rest.post("/v2/repository/models/digits/load", {"parameters": brought}).error
    assert rest.post("/v2/repository/models/digits/load", {"parameters": {"file:1/m": "!"}}).status == 400


@pytest.mark.parametrize("header", ["Forwarded", "X_Forwarded_For", "Via", "Origin"])
def test_load_and_unload_are_refused_to_callers_behind_a_proxy_or_browser(rest: Rest, header: str) -> None:
    refused = rest.post("/v2/repository/models/digits/unload", **{header: "http://evil.example"})
    assert refused.status == 403
    assert "admin.allow" in refused.error
    assert rest.manager.asked == []


def test_unknown_paths_and_verbs_get_404_and_405(rest: Rest) -> None:
    assert rest.get("/v2/nothing").status == 404
    assert rest.get("/v2/nothing").error == "no such path: /v2/nothing"
    assert rest.get("/v2/othersharedmemory/status").status == rest.post(f"{INFER}/", X).status == 404
    wrong = rest.get(INFER)
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert wrong.error == "expected POST, got GET"
    assert rest.post("/v2/models/digits/generate", {}).status == 501


def test_the_docs_page_is_complete_and_self_contained(rest: Rest) -> None:
    paths = rest.get("/openapi.json").json["paths"]
    page = rest.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    assert all(f"<code>{path}</code>" in text for path in paths)
    assert not re.findall(r"https?://|<script|@import|src=", text)  # a browser has nothing else to fetch
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert html.unescape(text).count('"datatype": "FP32"') == 2  # examples of bodies
    assert "/v2/models/{model}/infer" in paths
    assert "/v1/models/{model}:predict" in paths
