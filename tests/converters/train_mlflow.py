"""Logs models to MLflow, in a training environment: python train_mlflow.py DIRECTORY

As train_tables.py. The tracking database lies in the directory; models.json tells how to reach it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import skl2onnx
import xgboost
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

out = Path(sys.argv[1]).resolve()
out.mkdir(parents=True, exist_ok=True)
os.chdir(out)
tracking = f"sqlite:///{out}/mlflow.db"
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("digits")
data = load_digits()
x, held, y, labels = train_test_split(data.data, data.target, test_size=0.3, random_state=0)
np.savez("held.npz", input=held, expected=labels)
forest = RandomForestClassifier(40, random_state=0).fit(x, y)
boosted = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(x, y)
trees = xgboost.XGBClassifier(n_estimators=20).fit(x, y)
trusted = ["sklearn.tree._tree.Tree"]
models = []
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", forest.score(held, labels))
    mlflow.sklearn.log_model(
        forest, name="forest", input_example=x[:5], registered_model_name="digits", serialization_format="skops",
        skops_trusted_types=trusted,
    )  # fmt: skip
    mlflow.lightgbm.log_model(boosted, name="boosted", input_example=x[:5])
    mlflow.xgboost.log_model(trees, name="trees", input_example=x[:5])
    as_onnx = skl2onnx.to_onnx(forest, x[:1].astype("float32"), options={"zipmap": False})
    mlflow.onnx.log_model(as_onnx, name="onnx")
mlflow.MlflowClient().set_registered_model_alias("digits", "champion", "1")
accuracy = float(forest.score(held, labels))
for name, source, value in (
    ("MLflow alias, scikit-learn", "models:/digits@champion", accuracy),
    ("MLflow version, scikit-learn", "models:/digits/1", accuracy),
    ("MLflow run, LightGBM", f"runs:/{run.info.run_id}/boosted", float(boosted.score(held, labels))),
    ("MLflow run, XGBoost", f"runs:/{run.info.run_id}/trees", float(trees.score(held, labels))),
    ("MLflow run, ONNX", f"runs:/{run.info.run_id}/onnx", accuracy),
):
    flags: list[str] = []
    models.append({"name": name, "source": source, "sample": "held.npz", "accuracy": value, "flags": flags})
for entry in models:
    entry["environment"] = {"MLFLOW_TRACKING_URI": tracking}
Path("models.json").write_text(json.dumps(models, indent=1))
