"""Labels: names for versions, from the model's settings and, above them, from operators."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.server.config.fields import LABEL
from inferd.server.errors import InvalidRequest
from inferd.server.lifecycle.operations.overrides import ModelOverrides


def check_label(label: str) -> None:
    """Raises InvalidRequest for a text that cannot be a label: one of digits only would be taken for a version."""
    if not LABEL.fullmatch(label):
        raise InvalidRequest(
            f"label: expected a letter or _, then letters, digits, '_', '.' or '-', at most 128, got {label[:200]!r}"
        )


def effective_labels(configured: Mapping[str, int], wishes: ModelOverrides) -> dict[str, int]:
    """Label to version. Whether that version is available is another question: a label waits for it."""
    labels = dict(configured)
    for label, version in wishes.labels.items():
        if version is None:
            labels.pop(label, None)
        else:
            labels[label] = version
    return labels
