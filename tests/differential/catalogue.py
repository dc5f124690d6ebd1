"""The list of scenes, each with the server set-up that it runs on. Neighbours with equal set-ups share one server."""

from __future__ import annotations

from differential import models
from differential.scene import Scene
from differential.scenes import (
    access,
    bursts,
    cli,
    control,
    few,
    generated,
    lifecycle,
    native,
    oip,
    order,
    races,
    recorded,
    rest,
    streams,
    tfs,
)
from differential.side import Setup
from support.security import AUDIENCE, ISSUER

_LIMITS = ("grpc.max_message=16MiB", "http.max_body=4MiB", "server.shared_memory=/inferd-differential-")
# A run on the event loop that takes unexpectedly long is repeated on a worker thread, so a busy machine changes the
# number of runs. Servers whose runs are counted therefore never run models on the loop.
_COUNTED = (*_LIMITS, "instances.on_loop=never")
QUEUE = Setup("cq", models.write, ("server.transport=cq", *_COUNTED))
LOOP = Setup("loop", models.write, ("server.transport=cq", *_LIMITS), counted=False)
PUBLIC = Setup("public", models.write, ("server.transport=public", *_COUNTED))
_TOKENS = (
    "auth.tokens_file={place}/tokens.yaml",
    f"auth.jwt={{jwks_file: {{place}}/jwks.json, issuer: '{ISSUER}', audience: {AUDIENCE}}}",
    "server.shared_memory=/inferd-differential-",
)


def _small(name: str, *sets: str, tokens: bool = False) -> Setup:
    prepare = access.write_tokens if tokens else None
    return Setup(
        name,
        models.write_small,
        (*_COUNTED, *sets, *(_TOKENS if tokens else ())),
        prepare=prepare,
        token=access.token("all") if tokens else "",
    )


GUARDED = tuple(_small(f"guarded-{each}", f"server.transport={each}", tokens=True) for each in ("cq", "public"))
OPEN = _small(
    "open",
    'auth.anonymous={"scopes": ["predict"], "models": ["rows"]}',
    "auth.open=[health, metrics]",
    "admin.allow=authenticated",
    tokens=True,
)
BOUNDS = {
    each: {
        "rate": _small(
            f"rate-{each}",
            f"server.transport={each}",
            "limits.clients.rate=0.0001",
            "limits.clients.burst=5",
            "auth.open=[health, metrics]",
            'auth.anonymous={"scopes": ["predict", "metadata"]}',
            tokens=True,
        ),
        "concurrency": _small(f"concurrency-{each}", f"server.transport={each}", "limits.clients.concurrency=2"),
        "inflight": _small(
            f"inflight-{each}",
            f"server.transport={each}",
            "inflight.calls=3",
            "inflight.bytes=32KiB",
            "http.max_body=32KiB",
        ),
    }
    for each in ("cq", "public")
}
SWAPPED = Setup("swapped", models.write_swapped, _COUNTED)
BURSTS = tuple(
    Setup(
        f"burst-{name}",
        models.write,
        (*_LIMITS, *_TOKENS, *sets),
        prepare=access.write_tokens,
        counted=False,
        token=access.token("all"),
    )
    for name, sets in (
        ("cq", ("server.transport=cq",)),
        ("beside", ("server.transport=cq", "instances.on_loop=never")),
        ("public", ("server.transport=public",)),
    )
)
FRAMEWORKS = Setup("frameworks", models.write_frameworks, _COUNTED)
ISOLATED = Setup("isolated", models.write_few, (*_COUNTED, "isolation=process"))
WORKERS = Setup("workers", models.write_few, (*_COUNTED, "server.workers=2", "server.shared_memory=null"))
VERSIONS = Setup("versions", lifecycle.write_versions, _COUNTED)
KEPT = Setup("kept", lifecycle.write_versions, _COUNTED, ("--state-dir", "{place}/state"))
EXPLICIT = Setup(
    "explicit",
    lifecycle.write_versions,
    (*_COUNTED, "repository.mode=explicit", "repository.load=[second]", "admin.allow_upload=true"),
)
RACES = tuple(Setup(f"races-{each}", models.write_swapped, (f"server.transport={each}",)) for each in ("cq", "public"))
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
        Scene(f"{setup.name}/generated", setup, generated.play),
        Scene(f"{setup.name}/recorded", setup, recorded.play),
    ]


SCENES: tuple[Scene, ...] = (
    *_unary(QUEUE),
    Scene("cq/described", QUEUE, tfs.play_described),
    Scene("cq/models", QUEUE, control.play_described),
    Scene("cq/shared memory", QUEUE, control.play_shared_memory),
    Scene("cq/http", QUEUE, rest.play_http),
    Scene("cq/control", QUEUE, rest.play_control),
    Scene("cq/wishes", QUEUE, control.play_wishes),
    Scene("cq/remote commands", QUEUE, cli.play_remote),
    *_unary(LOOP),
    *_unary(PUBLIC),
    Scene("public/models", PUBLIC, control.play_described),
    Scene("public/wishes", PUBLIC, control.play_wishes),
    *(
        Scene(f"{setup.name}/{name}", setup, play)
        for setup in (*GUARDED, OPEN)
        for name, play in (("methods", access.play_methods), ("routes", access.play_routes))
    ),
    *(
        Scene(
            setup.name,
            setup,
            {"rate": access.play_rate, "concurrency": access.play_concurrency, "inflight": access.play_inflight}[name],
        )
        for bounds in BOUNDS.values()
        for name, setup in bounds.items()
    ),
    Scene("settings", SWAPPED, cli.play_settings),
    Scene("checks", SWAPPED, cli.play_checks),
    Scene("published", SWAPPED, control.play_published),
    *(Scene(f"{setup.name}/order", setup, order.play) for setup in HELD),
    *(Scene(f"{setup.name}", setup, bursts.play) for setup in BURSTS),
    Scene("versions/policies", VERSIONS, lifecycle.play_policies),
    Scene("versions/in place", VERSIONS, lifecycle.play_in_place),
    Scene("restarted", KEPT, lifecycle.play_restarted),
    Scene("explicit", EXPLICIT, lifecycle.play_explicit),
    Scene("frameworks", FRAMEWORKS, few.play_frameworks),
    Scene("isolated", ISOLATED, few.play_kinds),
    Scene("workers", WORKERS, few.play_workers),
    *(
        Scene(f"{setup.name}/{name}", setup, play, exact=False)
        for setup in RACES
        for name, play in (
            ("overload", races.play_overload),
            ("cancelled", races.play_cancelled),
            ("deadlines", races.play_deadlines),
            ("streams", races.play_streams),
            ("swapped", races.play_swapped),
            ("drained", races.play_drained),
        )
    ),
)
