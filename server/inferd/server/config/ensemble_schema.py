"""An ensemble's settings: models of the same server whose inputs and outputs are connected. The text under a key
documents it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferd.server.config.fields import Section, Text, Version

_TENSORS = 4096  # as in a request


class Step(Section):
    """One model of an ensemble, and how it is connected."""

    model: Text
    """Name of a model of this server."""
    version: Version | None = None
    """Its version. null: the one that answers requests without a version."""
    inputs: Annotated[dict[Text, Text], Field(min_length=1, max_length=_TENSORS)]
    """By input of the model: the ensemble's tensor that it gets."""
    outputs: Annotated[dict[Text, Text], Field(min_length=1, max_length=_TENSORS)]
    """By output of the model: the name that it has in the ensemble. Outputs that are not listed are not used."""

    @property
    def target(self) -> str:
        """Model and version, as messages show them."""
        return repr(self.model) if self.version is None else f"{self.model!r} version {self.version}"
