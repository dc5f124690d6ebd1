"""Measurements that compare alternatives within one run: `make bench`, or `python -m benchmarks NAME...`.

Machines are shared and noisy, so each figure is the median of alternating rounds, and the ratios matter more than the
figures. Nothing here is a test. The code that starts servers is shared with the tests (tests/support).
"""

import sys
from pathlib import Path

from inferd.backends.quiet import be_quiet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
be_quiet()
