"""Settings of models as tests ask for them."""

from __future__ import annotations

from typing import Any

from inferd.server.config.load import model_config
from inferd.server.config.schema import ModelConfig


def config_of(*args: Any, **options: Any) -> ModelConfig:
    """As `model_config`, without the notes."""
    return model_config(*args, **options)[0]
