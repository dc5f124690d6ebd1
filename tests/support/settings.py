"""Makes the settings of models."""

from __future__ import annotations

from typing import Any

from inferd.server.config.load import model_config
from inferd.server.config.schema import ModelConfig


def config_of(*args: Any, **options: Any) -> ModelConfig:
    """The result of `model_config` without the notes."""
    return model_config(*args, **options)[0]
