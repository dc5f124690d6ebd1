"""The measurements are no installed package: their folder's parent goes to the end of the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
