"""Programs that run in the interpreter that trained a model, and turn the model into one that is served.

`driver.py` is started there with the standard library alone (`python -I driver.py`), loads one of the other files by
its path, and calls its `convert(request, tools)`. Nothing here imports inferd, and nothing of inferd imports these
files: the other interpreter may have other versions of every package, protobuf included. They run on Python 3.9 and
newer.

    driver.py          talks to `tasks.run_task`; the Tools that converters use
    sklearn_models.py  scikit-learn, pipelines with XGBoost and LightGBM in them, columns of pandas frames → ONNX
    boosters.py        XGBoost's and LightGBM's own files → ONNX
    keras_models.py    Keras models, weights and checkpoints → SavedModel, ONNX or LiteRT
    torch_models.py    torch modules, state dicts, safetensors → torch.export or ONNX
    mlflow_fetch.py    downloads what an MLflow URI names
"""
