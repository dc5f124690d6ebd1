"""Downloads what an MLflow URI names, and tells what the tracking server knows of it."""

from __future__ import annotations

import os
from typing import Any

MOST = 100  # metrics and parameters that are told


def convert(request: dict[str, Any], tools: Any) -> dict[str, Any]:
    mlflow = tools.need("mlflow")
    uri = request["uri"]
    tools.say(f"asks {mlflow.get_tracking_uri()} for {uri}")
    client = mlflow.MlflowClient()
    told: dict[str, Any] = {}
    try:
        if uri.startswith("models:/"):
            told.update(_registered(client, uri))
        elif uri.startswith("runs:/"):
            told["run_id"] = uri[len("runs:/") :].partition("/")[0]
        target = os.path.join(request["work"], "mlflow")
        os.makedirs(target)
        # Into a directory of ours, always: for a local store the default answer is the store's own directory.
        found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=target)
    except mlflow.exceptions.MlflowException as error:
        text = str(error).strip()
        more = ""
        if "file store" in text.lower() or "MLFLOW_ALLOW_FILE_STORE" in text:
            more = "; set MLFLOW_ALLOW_FILE_STORE=true, or use a database: --backend-store-uri sqlite:///mlflow.db"
        raise tools.Refused(f"MLflow does not give {uri}: {text.splitlines()[0][:300]}{more}") from None
    if told.get("run_id"):
        told.update(_run(client, told["run_id"]))
    return {"directory": str(found), **told}


def _registered(client: Any, uri: str) -> dict[str, Any]:
    name, _, which = uri[len("models:/") :].partition("/")
    alias = ""
    if "@" in name:
        name, _, alias = name.partition("@")
        version = client.get_model_version_by_alias(name, alias)
    elif which == "latest":
        version = max(client.search_model_versions(f"name='{name}'"), key=lambda v: int(v.version), default=None)
    elif which.isdigit():
        version = client.get_model_version(name, which)
    else:
        return {}  # models:/m-...: a logged model by its id
    if version is None:
        return {}
    return {
        "name": name,
        "version": str(version.version),
        "alias": alias,
        "run_id": version.run_id or "",
        "model_id": getattr(version, "model_id", "") or "",
    }


def _run(client: Any, run_id: str) -> dict[str, Any]:
    try:
        run = client.get_run(run_id)
    except Exception:  # the run may have been deleted; the model is there
        return {}
    tags = run.data.tags
    return {
        "metrics": dict(sorted(run.data.metrics.items())[:MOST]),
        "params": dict(sorted(run.data.params.items())[:MOST]),
        "commit": tags.get("mlflow.source.git.commit", ""),
        "repository": tags.get("mlflow.source.git.repoURL", ""),
    }
