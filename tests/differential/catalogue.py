"""Every scene, with the server that it is played on. Scenes with equal set-ups share one, in this order."""

from __future__ import annotations

from differential import models
from differential.scene import Scene
from differential.scenes import native, oip, order, rest, streams, tfs
from differential.side import Setup

_LIMITS = ("grpc.max_message=16MiB", "http.max_body=4MiB", "server.shared_memory=/inferd-differential-")
# A run on the loop that the machine has slowed is made again beside it: so its runs cannot be counted.
_COUNTED = (*_LIMITS, "instances.on_loop=never")
QUEUE = Setup("cq", models.write, ("server.transport=cq", *_COUNTED))
LOOP = Setup("loop", models.write, ("server.transport=cq", *_LIMITS), counted=False)
PUBLIC = Setup("public", models.write, ("server.transport=public", *_COUNTED))
HELD = tuple(
    Setup(f"held-{each}", models.write_held, (f"server.transport={each}", *_COUNTED)) for each in ("cq", "public")
)


def _unary(setup: Setup) -> list[Scene]:
    return [
        Scene(f"{setup.name}/native", setup, native.play),
        Scene(f"{setup.name}/calls", setup, native.play_calls),
        Scene(f"{setup.name}/oip", setup, oip.play),
        Scene(f"{setup.name}/tfs", setup, tfs.play),
        Scene(f"{setup.name}/examples", setup, tfs.play_examples),
        Scene(f"{setup.name}/v2", setup, rest.play_v2),
        Scene(f"{setup.name}/v1", setup, rest.play_v1),
        Scene(f"{setup.name}/streams", setup, streams.play),
    ]


SCENES: tuple[Scene, ...] = (
    *_unary(QUEUE),
    Scene("cq/described", QUEUE, tfs.play_described),
    Scene("cq/http", QUEUE, rest.play_http),
    Scene("cq/control", QUEUE, rest.play_control),
    *_unary(LOOP),
    *_unary(PUBLIC),
    *(Scene(f"{setup.name}/order", setup, order.play) for setup in HELD),
)
