"""Adds the repository's root to the end of the path, because `benchmarks` is not an installed package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
