"""Trains models of tables on scikit-learn's data sets, in a training environment: python train_tables.py DIRECTORY

Writes every model in the formats that `inferd publish` takes, its held-out rows with labels, and models.json with the
accuracy of each original on them.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import pandas as pd
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
models: list[dict[str, object]] = []


def halves(data):
    return train_test_split(data.data, data.target, test_size=0.3, random_state=0)


def sample(name: str, rows, labels) -> None:
    arrays = rows if isinstance(rows, dict) else {"input": rows}
    np.savez(out / f"{name}.npz", expected=np.asarray(labels), **arrays)


def told(name: str, source: str, rows: str, accuracy: float, *flags: str) -> None:
    if "xgb-pipeline" in source:
        flags = (*flags, "--dtype", "FP64")  # the scaled rows lie on the thresholds: FP32 rounds to their other side
    models.append({"name": name, "source": source, "sample": f"{rows}.npz", "accuracy": accuracy, "flags": list(flags)})


digits = halves(load_digits())
iris = halves(load_iris())
cancer = halves(load_breast_cancer())
sample("digits", digits[1], digits[3])
sample("iris", iris[1], iris[3])
sample("cancer", cancer[1], cancer[3])

for name, model, (x, held, y, labels), rows in (
    ("forest", RandomForestClassifier(60, random_state=0), digits, "digits"),
    ("logistic", make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), iris, "iris"),
    ("svm", make_pipeline(StandardScaler(), SVC(random_state=0)), digits, "digits"),
    ("boosting", GradientBoostingClassifier(random_state=0), cancer, "cancer"),
    (
        "lgbm-pipeline",
        make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=30, verbose=-1)),
        iris,
        "iris",
    ),
    ("xgb-pipeline", make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=30)), iris, "iris"),
):
    model.fit(x, y)
    skops.io.dump(model, out / f"{name}.skops")
    told(f"scikit-learn {name} (.skops)", f"{name}.skops", rows, accuracy_score(labels, model.predict(held)))
    if name == "logistic":
        joblib.dump(model, out / "logistic.joblib")
        (out / "logistic.pkl").write_bytes(pickle.dumps(model))
        for suffix in ("joblib", "pkl"):
            accuracy = accuracy_score(labels, model.predict(held))
            told(f"scikit-learn logistic (.{suffix})", f"logistic.{suffix}", rows, accuracy, "--trust")

# Columns of a pandas frame, texts among them.
random = np.random.default_rng(0)
people = pd.DataFrame(
    {
        "age": random.integers(1, 80, 900).astype(float),
        "fare": random.gamma(2.0, 20.0, 900),
        "port": random.choice(["Southampton", "Cherbourg", "Queenstown"], 900),
        "sex": random.choice(["male", "female"], 900),
    }
)
survived = ((people.sex == "female") | (people.age < 12)) ^ (random.random(900) < 0.1)
names = np.where(survived, "survived", "lost")
frame_x, frame_held, frame_y, frame_labels = train_test_split(people, names, test_size=0.3, random_state=0)
columns = make_pipeline(
    ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["port", "sex"]),
        ]
    ),
    LogisticRegression(),
)
columns.fit(frame_x, frame_y)
skops.io.dump(columns, out / "columns.skops")
sample(
    "columns",
    {name: np.asarray(frame_held[name], str if name in ("port", "sex") else float) for name in frame_held.columns},
    frame_labels.astype(str),
)
frame_held.assign(expected=frame_labels).to_csv(out / "columns.csv", index=False)
told(
    "scikit-learn columns of pandas (.skops)",
    "columns.skops",
    "columns",
    accuracy_score(frame_labels, columns.predict(frame_held)),
)

# Texts.
texts = [f"{'good fine great' if i % 2 else 'bad poor awful'} {i % 7} film".split() for i in range(200)]
lines = [" ".join(random.permutation(words)) for words in texts]
moods = np.array(["praise" if i % 2 else "blame" for i in range(200)])
words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(lines[:140], moods[:140])
skops.io.dump(words, out / "words.skops")
sample("words", {"text": np.array(lines[140:])}, moods[140:])
told("scikit-learn texts (.skops)", "words.skops", "words", accuracy_score(moods[140:], words.predict(lines[140:])))

# The boosters' own files.
x, held, y, labels = digits
xgb = xgboost.XGBClassifier(n_estimators=20, max_depth=4).fit(x, y)
for suffix in ("ubj", "json"):
    xgb.save_model(out / f"xgb.{suffix}")
    told(f"XGBoost (.{suffix})", f"xgb.{suffix}", "digits", accuracy_score(labels, xgb.predict(held)))
x, held, y, labels = cancer
xgb = xgboost.XGBClassifier(n_estimators=20).fit(x, y)
xgb.save_model(out / "xgb-two.ubj")
told("XGBoost of two classes (.ubj)", "xgb-two.ubj", "cancer", accuracy_score(labels, xgb.predict(held)))
for name, (x, held, y, labels) in (("iris", iris), ("cancer", cancer)):
    lgbm = lightgbm.LGBMClassifier(n_estimators=30, verbose=-1).fit(x, y)
    lgbm.booster_.save_model(out / f"lgbm-{name}.txt")
    told(f"LightGBM {name} (.txt)", f"lgbm-{name}.txt", name, accuracy_score(labels, lgbm.predict(held)))

(out / "models.json").write_text(json.dumps(models, indent=1))
