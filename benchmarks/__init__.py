"""Measurements, as ratios taken side by side in one run: `make bench`, or `python -m benchmarks NAME...`.

The machines are shared and noisy: every figure is the median of alternating rounds, and what is stated is the ratio.
Nothing here is a test. The harness that starts real servers is the tests' own.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
