"""Trains a small torch model on scikit-learn's digits, in a training environment: python train_torch.py DIRECTORY

As train_tables.py: models in every format, held-out rows, and models.json.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU(), torch.nn.Dropout(0.3),
            torch.nn.Linear(width, 10),
        )

    def forward(self, image):
        return torch.softmax(self.layers(image), dim=1)
"""
(out / "net_torch.py").write_text(CODE)
sys.path.insert(0, str(out))
from net_torch import Net  # noqa: E402

torch.manual_seed(0)
data = load_digits()
x, held, y, labels = train_test_split((data.data / 16).astype("float32"), data.target, test_size=0.3, random_state=0)
np.savez(out / "torch-digits.npz", image=held, expected=labels)
model = Net()
optimiser = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(150):
    optimiser.zero_grad()
    loss = torch.nn.functional.nll_loss(torch.log(model(torch.from_numpy(x)) + 1e-9), torch.from_numpy(y))
    loss.backward()
    optimiser.step()
# Saved as it was trained, in training mode: publishing is what makes it ready to serve.
torch.save(model.state_dict(), out / "weights.pth")
torch.save(
    {"epoch": 150, "model_state_dict": model.state_dict(), "optimizer": optimiser.state_dict()}, out / "checkpoint.ckpt"
)
torch.save(model, out / "module.pth")
torch.save(model.state_dict(), out / "weights.pt")
model.eval()
with torch.no_grad():
    accuracy = float((model(torch.from_numpy(held)).argmax(1).numpy() == labels).mean())
rows = {"image": {0: torch.export.Dim("batch", min=1, max=1024)}}
torch.export.save(torch.export.export(model, (torch.from_numpy(x[:2]),), dynamic_shapes=rows), out / "net.pt2")
module = ("--module", str(out / "net_torch.py:Net"))
models = [
    ("torch state dict with code (.pth)", "weights.pth", module),
    ("torch state dict with code (.pt)", "weights.pt", module),
    ("torch checkpoint with code (.ckpt)", "checkpoint.ckpt", module),
    ("torch module, pickled (.pth)", "module.pth", (*module, "--trust")),
    ("torch.export (.pt2)", "net.pt2", ()),
]
try:
    from safetensors.torch import save_file
except ImportError:
    pass
else:
    save_file(model.state_dict(), out / "weights.safetensors")
    models.append(("safetensors with code", "weights.safetensors", module))
try:
    import onnxscript  # noqa: F401
except ImportError:
    pass
else:
    models.append(("torch state dict to ONNX", "weights.pth", (*module, "--to", "onnx")))
    torch.onnx.export(model, (torch.from_numpy(x[:2]),), out / "net.onnx", dynamic_shapes=rows, dynamo=True)
    models.append(("torch.onnx.export with its .data", "net.onnx", ()))
with zipfile.ZipFile(out / "net.mar", "w") as archive:
    manifest = {
        "model": {
            "modelName": "net",
            "serializedFile": "weights.pth",
            "modelFile": "net_torch.py",
            "handler": "base_handler",
        }
    }
    archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    archive.write(out / "weights.pth", "weights.pth")
    archive.write(out / "net_torch.py", "net_torch.py")
models.append(("TorchServe archive (.mar)", "net.mar", ("--trust",)))
found = [
    {"name": name, "source": source, "sample": "torch-digits.npz", "accuracy": accuracy, "flags": list(flags)}
    for name, source, flags in models
]
(out / "models.json").write_text(json.dumps(found, indent=1))
