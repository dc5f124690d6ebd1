"""Random graphs of the tables' operators, with views and writes in place: what is proven must agree with a run."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import settings
from support.torch_graphs import capture, hostile, rows_meet

pytestmark = pytest.mark.heavy
ROWS = 5
SHAPES = ((4, 3), (2, 6), (4,), (3, 4), (2, 3, 2), ())
Step = Callable[[list], object]


def steps(rng: random.Random) -> Step:
    """A step: takes the values so far and returns a new one, or None if it only writes. The choices are made once, so
    that the step does the same in every run."""
    picks = [rng.randrange(1, 5) for _ in range(3)]
    axis, other_axis, keep = rng.randrange(-4, 4), rng.randrange(-4, 4), rng.random() < 0.5
    place, number = rng.choice([0, 1, -1]), rng.choice([2, 3, 4, 6, 12])
    kind = rng.randrange(34)
    unary = rng.choice([torch.relu, torch.neg, torch.sigmoid, torch.abs])
    binary = rng.choice([torch.add, torch.mul, torch.maximum, torch.sub])
    along = rng.choice([torch.softmax, torch.log_softmax, torch.cumsum])
    reduce = rng.choice([torch.sum, torch.mean, torch.amax, torch.prod])
    order = rng.random()
    target = rng.choice(["rows first", "rows last", "rows inside", "number first", "number last", "flat", "of another"])
    weight = torch.arange(number * 4, dtype=torch.float32).reshape(number, 4) / 10

    def step(values: list) -> object:
        x, y, z = (values[-min(pick, len(values))] for pick in picks)
        rows = values[0].shape[0]
        if kind == 0:
            return unary(x)
        if kind in (1, 2, 3):
            return binary(x, y)
        if kind == 4:
            return along(x, axis)
        if kind == 5:
            return reduce(x, axis, keep)
        if kind in (6, 7):
            shuffled = list(range(x.ndim))
            random.Random(order).shuffle(shuffled)
            return x.permute(shuffled)
        if kind in (8, 9, 10):
            sizes = {
                "rows first": (rows, -1),
                "rows last": (-1, rows),
                "rows inside": (2, rows, -1),
                "number first": (number, -1),
                "number last": (-1, number),
                "flat": (-1,),
                "of another": y.shape,
            }[target]
            return x.reshape(sizes)
        if kind == 11:
            return torch.cat([x, y], axis)
        if kind == 12:
            return torch.stack([x, y], axis)
        if kind == 13:
            return x.narrow(axis, 0, 1) if keep else x.select(axis, place)
        if kind == 14:
            return x.index_select(axis, torch.tensor([0, place % 2]))
        if kind == 15:
            return x[torch.arange(rows), place] if keep else x[:, torch.tensor([place, 0])]
        if kind == 16:
            return torch.nn.functional.pad(x, [1, 0, 0, 1] if keep else [0, 0, 1, 1])
        if kind == 17:
            return x.unsqueeze(axis)
        if kind == 18:
            return x.squeeze(axis)
        if kind in (19, 20):
            return torch.matmul(x, y if kind == 19 else weight)
        if kind == 21:
            return x.expand(y.shape) if keep else x.expand(rows, *x.shape[1:])
        if kind == 22:
            return x.flip(axis) if keep else x.roll(1, axis)
        if kind == 23:
            return x.chunk(2, axis)[place % 2]
        if kind == 24:
            return torch.where(x > 0, y, z)
        if kind == 25:
            return torch.gather(x, axis, x.argsort(other_axis))
        if kind == 26:
            return x * x.shape[axis]
        if kind == 27:
            return torch.zeros(rows, number) + 1 if keep else torch.ones_like(x)
        # Writes in place.
        target_of = x if keep else x.select(axis, place) if place else x.narrow(axis, 0, 1)
        if kind in (28, 29):
            target_of.add_(y)
        elif kind == 30:
            target_of.copy_(y)
        elif kind == 31:
            target_of.mul_(2.0)
        elif kind == 32:
            x.transpose(axis, other_axis).sub_(y)
        else:
            x.masked_fill_(y > 0, 0.5)
        return None

    return step


def random_function(seed: int) -> tuple[Callable, torch.Tensor]:
    """A function whose steps all work for the example."""
    rng = random.Random(seed)
    x = torch.randn((ROWS, *rng.choice(SHAPES)), generator=torch.Generator().manual_seed(seed))
    chosen: list[Step] = []
    wanted = rng.randrange(2, 9)
    for _ in range(40):
        if len(chosen) == wanted:
            break
        tried = [*chosen, steps(rng)]
        try:
            run(tried, x.clone())
        except (RuntimeError, IndexError, KeyError, ValueError):
            continue
        chosen = tried
    return (lambda given: run(chosen, given)), x


def run(chosen: list[Step], x: torch.Tensor) -> torch.Tensor:
    values = [x * 1.0]
    for step in chosen:
        found = step(values)
        if found is not None:
            values.append(found)
    return values[-1] * 1.0


def check(seed: int, language: str) -> bool:
    """Whether the graph is proven. Fails if a run disagrees."""
    function, x = random_function(seed)
    try:
        graph = capture(function, (x,), language)
    except Exception:
        assert language == "export"  # refuses graphs that fix the number of rows
        return False
    if not graph.finding().proven:
        return False
    try:
        found = rows_meet(graph, hostile(graph, 6, seed))
    except Exception:
        return False  # a graph that fails for a row alone mixes nothing
    if found is not None and found.startswith("refuses"):
        return False  # a program of torch.export may refuse numbers of rows, for steps that it has left out
    assert found is None, f"seed {seed}: {found}\n{graph.captured.graph}"
    return True


EXAMPLES = settings().max_examples  # more than the 100 of a usual run, if INFERD_TEST_EXAMPLES says so


@pytest.mark.parametrize(("language", "seeds"), [("trace", range(2 * EXAMPLES)), ("export", range(EXAMPLES // 6))])
def test_what_is_proven_agrees_with_a_run(language: str, seeds: range) -> None:
    proven = sum(check(seed, language) for seed in seeds)
    assert len(seeds) // 10 < proven < len(seeds)
