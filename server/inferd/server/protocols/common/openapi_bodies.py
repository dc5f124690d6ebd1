"""Schemas and examples of request and response bodies, for the OpenAPI document and /docs. They only describe: the
parsers of the protocols decide what is accepted."""

from __future__ import annotations

from typing import Any

_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "examples": ["FP32"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array", "items": {}, "description": "Row-major, nested or flat."},
        "parameters": _PARAMETERS,
    },
}


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _answer(text: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    return {
        200: {"description": text, "content": {"application/json": {"schema": schema}}},
        "4XX": {
            "description": "An error: what was expected, and what came.",
            "content": {"application/json": {"schema": error}},
        },
        "5XX": {"description": "An error: what failed.", "content": {"application/json": {"schema": error}}},
    }


INFER = _body(
    {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
                },
            },
        },
    },
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.5, 1, 1.5, 2]}]},
)
INFER_ANSWER = _answer(
    "The outputs, in the order of the request.",
    {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
)
PREDICT = _body(
    {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string"},
            "instances": {"type": "array", "items": {}, "description": "Row format: one item for each row."},
            "inputs": {"description": "Column format: a tensor, or an object of tensors by name."},
        },
    },
    {"instances": [[0.5, 1, 1.5, 2]]},
)
PREDICT_ANSWER = _answer(
    "`predictions` for a request with `instances`, `outputs` for one with `inputs`.",
    {"type": "object", "properties": {"predictions": {"type": "array", "items": {}}, "outputs": {}}},
)
EXAMPLES = _body(
    {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "items": {"type": "object"}},
        },
    },
    {"examples": [{"age": 41, "city": "Turin"}]},
)
