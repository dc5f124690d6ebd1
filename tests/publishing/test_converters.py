"""Models are converted by another process, and what comes out answers as the original does.

Every source, with the newest releases: `make test-converters`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inferd.server.cli.main import main
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.sources.material import SourceOptions

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.Dropout(0.5), torch.nn.Linear(width, 10))

    def forward(self, image):
        return torch.softmax(self.layers(image), dim=1)
"""


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


@pytest.mark.heavy
@pytest.mark.usefixtures("here")
@pytest.mark.timeout(600)
def test_a_state_dict_with_its_code_is_served_as_it_was_trained(tmp_path: Path, digits, capsys) -> None:
    import torch

    rows, labels = digits
    (tmp_path / "net.py").write_text(NET)
    namespace: dict = {}
    exec(NET, namespace)
    torch.manual_seed(0)
    net = namespace["Net"](width=16)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(
            net(torch.from_numpy(rows[:1000])), torch.from_numpy(labels[:1000])
        ).backward()
        optimiser.step()
    torch.save({"epoch": 60, "model_state_dict": net.state_dict()}, tmp_path / "net.pth")  # in training mode
    np.savez(tmp_path / "held.npz", image=rows[1000:], expected=labels[1000:])
    net.eval()
    right = float((net(torch.from_numpy(rows[1000:])).argmax(1).numpy() == labels[1000:]).mean())
    assert right > 0.7
    command = ["publish", "digits", str(tmp_path / "net.pth"), "-r", str(tmp_path / "models"), "--json"]
    code = ["--module", f"{tmp_path / 'net.py'}:Net", "--args", '{"width": 16}', "--sample", str(tmp_path / "held.npz")]
    assert main([*command, *code, "--names", "probabilities"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["parity"]["rows"] == done["parity"]["agreeing"] == 797
    assert done["checked"]["batching"] == "up to 32 rows"
    told = json.loads((tmp_path / "models/digits/1/.inferd/provenance.json").read_text())
    assert told["metrics"]["accuracy"] == told["metrics"]["accuracy_of_original"] == pytest.approx(right, abs=1e-6)
    assert told["made_with"]["torch"] == torch.__version__


def convert(published, path: Path, **options: object) -> str:
    """The reason why a file is not published."""
    with pytest.raises(PublishError) as caught:
        published(path, source=SourceOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    published, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "m.skops").write_bytes(b"")
    reason = convert(published, tmp_path / "m.skops")
    assert "the conversion needs skops" in reason
    assert f"{sys.executable} -m pip install skops" in reason
    assert convert(published, tmp_path / "m.skops", python="no-such-python") == (
        "--python no-such-python: there is no such program"
    )
    assert not repository.exists()


def keras_file(path: Path, layer: dict) -> Path:
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
    return path


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {}}, "holds a Lambda layer"),
        ({"module": "os", "class_name": "system", "config": {}}, r"names os\.system, which is neither Keras's nor"),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"f": {"class_name": "__lambda__"}}}, "a lambda"),
    ],
)
def test_code_in_a_keras_file_is_found_before_keras_reads_it(
    published, tmp_path: Path, repository: Path, layer: dict, reason: str
) -> None:
    said = convert(published, keras_file(tmp_path / "m.keras", layer))
    assert "--trust" in said
    assert re.search(reason, said)
    assert not repository.exists()


def test_a_keras_file_that_nests_without_end_is_refused(published, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", '{"layers": [' * 200_000)
    assert "no JSON that Keras writes" in convert(published, tmp_path / "m.keras")


class Owns:
    """A pickle that writes a file where it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_torch_reads_weights_and_runs_no_pickle(published, tmp_path: Path, repository: Path) -> None:
    import torch

    torch.save({"model": Owns(tmp_path / "owned")}, tmp_path / "m.pth")
    reason = convert(published, tmp_path / "m.pth", module=f"{tmp_path / 'net.py'}:Net")
    assert "--trust" in reason
    assert not (tmp_path / "owned").exists()
    assert not repository.exists()


def test_a_pickle_runs_only_with_trust_and_only_in_the_subprocess(published, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Owns(tmp_path / "owned")))
    assert "no scikit-learn model" in convert(published, tmp_path / "m.pkl", trust=True)
    assert (tmp_path / "owned").exists()  # the file had all rights, as it was told
    assert not repository.exists()
