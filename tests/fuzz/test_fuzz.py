"""A short version of `make fuzz`: every seed, every input that has ever failed, and some hundred mutations of them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

HERE = Path(__file__).parent
MUTATIONS = 400
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def kept(name: str) -> list[bytes]:
    """The inputs that have made this target fail in the past."""
    return [file.read_bytes() for file in sorted((HERE / "corpus" / name).glob("*"))]


def mutations(inputs: list[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    """Mutations of the inputs: bytes changed, inserted, removed or doubled, or two inputs joined."""
    for _ in range(count):
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(data))
            length = rng.randint(1, 8)
            kind = rng.randrange(5)
            if kind == 0 and at < len(data):
                data[at] = rng.choice((*INTERESTING, rng.randrange(256)))
            elif kind == 1:
                data[at:at] = bytes(rng.choice((*INTERESTING, rng.randrange(256))) for _ in range(length))
            elif kind == 2:
                del data[at : at + length]
            elif kind == 3:
                data[at:at] = data[at : at + length]
            else:
                data[at:] = rng.choice(inputs)[at:]
        yield bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_are_raised(name: str) -> None:
    inputs = [*SEEDS[name], *kept(name)]
    for data in (*inputs, *mutations(inputs, MUTATIONS, random.Random(name))):
        TARGETS[name](data)


def test_every_target_has_seeds_and_every_kept_input_a_target() -> None:
    assert set(SEEDS) == set(TARGETS)
    assert all(SEEDS.values())
    kept_for = {folder.name for folder in (HERE / "corpus").iterdir() if folder.is_dir()}
    assert kept_for <= set(TARGETS)


def test_the_fuzzer_runs_and_finds_an_error(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is installed by `make fuzz`")
    command = [sys.executable, "-m", "fuzz", "http_head", "--seconds", "1", "--keep", str(tmp_path)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing failed" in done.stdout
