"""The demo, which is the first thing that a new user runs: it must exit with 0 and show what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.heavy
@pytest.mark.timeout(240)
def test_the_demo_shows_three_frameworks_and_a_new_version_without_a_lost_request() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracies = [float(found) for found in re.findall(r"450 predictions, accuracy (\d\.\d+)", done.stdout)]
    assert len(accuracies) == 3
    assert min(accuracies) > 0.85
    sent = re.search(r"requests sent (\d+), failed (\d+)", done.stdout)
    assert sent is not None
    assert int(sent[1]) > 800
    assert int(sent[2]) == 0
    assert re.search(r"answers of version: \{1: \d+, 2: \d+\}", done.stdout)


@pytest.mark.timeout(240)
def test_the_demo_of_the_package_serves_calls_and_replaces() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "demo"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it says 2          it says 0" in done.stdout
    assert re.search(r"requests: [\d,]+, failed: 0; answered by version 1 [\d,]+, version 2 [\d,]+", done.stdout)
    assert "right answers to 450 digits: version 1 400, version 2 440" in done.stdout
    assert "$ inferd init" in done.stdout
