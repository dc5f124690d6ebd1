"""Keeps frameworks from reporting to their makers and from writing into the user's home directory.

Each of these looks at its environment once, while it is imported. So the variables are set before the first import, in
the process itself and for the processes that it starts. A value that the user has set is replaced: nothing of what
inferd serves is sent anywhere, whatever a machine's profile says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import Final

QUIET: Final[Mapping[str, str]] = MappingProxyType(
    {
        # ONNX Runtime's wheels send usage to an outside host, and keep an id of the machine below HOME.
        "ORT_DISABLE_TELEMETRY": "1",
        # Libraries of plug-ins: the hub's client, and what honours the common variable.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        # Keras, which TensorFlow may import, writes its settings here; no directory can be made below a device.
        "KERAS_HOME": "/dev/null/keras",
    }
)
"""Variables of the environment, by name."""


def be_quiet(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the variables. Call it before a framework is imported; calling it again changes nothing."""
    for name, value in QUIET.items():
        if environment.get(name) != value:
            environment[name] = value
