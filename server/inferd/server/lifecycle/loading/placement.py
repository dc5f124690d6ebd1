"""Where a model's instances run: the configured devices, with `auto` resolved, and the CPU threads of each instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.backends.api import Placement
from inferd.server.config.schema import Instances
from inferd.server.lifecycle.resources.cpu_budget import share


def placements(instances: Instances, devices: Callable[[], Sequence[str]], cpu_threads: int) -> tuple[Placement, ...]:
    """One placement per instance: `count` on each device, in the order of the devices.

    `devices` gives the backend's devices, the best first. It is called for `auto` only, because it may import a
    framework. `cpu_threads` are divided between all instances of the model; an instance on another device gets the same
    share as one on the CPU.
    """
    named = (instances.device,) if isinstance(instances.device, str) else instances.device
    resolved = []
    for device in named:
        if device == "auto":
            best = devices()
            device = best[0] if best else "cpu"  # noqa: PLW2901
        resolved.append(device)
    total = len(resolved) * instances.count
    threads = instances.threads if instances.threads is not None else share(cpu_threads, total)
    # The thread of an instance on another device computes nothing but must feed the device without delay.
    return tuple(
        Placement(device, threads, instances.nice if device == "cpu" else 0)
        for device in resolved
        for _ in range(instances.count)
    )
