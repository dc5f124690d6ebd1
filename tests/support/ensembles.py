"""Ensembles in Triton's format (config.pbtxt)."""

from __future__ import annotations

from pathlib import Path

CHAIN = """
name: "chain"
platform: "ensemble"
max_batch_size: 32
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "prepare"
      model_version: -1
      input_map { key: "x" value: "x" }
      output_map { key: "y" value: "prepared" }
    },
    {
      model_name: "classify"
      model_version: -1
      input_map { key: "x" value: "prepared" }
      output_map { key: "y" value: "classified" }
    },
    {
      model_name: "finish"
      model_version: -1
      input_map { key: "x" value: "classified" }
      output_map { key: "y" value: "y" }
    }
  ]
}
"""


def write_ensemble(repository: Path, name: str = "chain", text: str = CHAIN) -> Path:
    """Writes an ensemble, with the empty version directory that Triton requires. Returns its directory."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(text)
    return directory
