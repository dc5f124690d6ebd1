"""`python -m containers image` (make image-test), `python -m containers kserve` (make kserve-test).

They need root on Debian and the package indexes. They install the programs that they need, and fail, never skip, where
something is missing or wrong. What they build is kept in var/containers for the next run; everything else goes with
them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback

from containers.tools import Failure, say

TESTS = {"image": "containers.image_test", "kserve": "containers.kserve_test"}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m containers", description="Containers, without an engine.")
    parser.add_argument("test", choices=TESTS)
    parser.add_argument("--built", action="store_true", help="with the images that an earlier run has built")
    args = parser.parse_args()
    name = args.test
    began = time.monotonic()
    try:
        importlib.import_module(TESTS[name]).main(args.built)
    except Failure as failure:
        print(f"{name}: FAILED: {failure}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        print(f"{name}: FAILED", file=sys.stderr)
        return 1
    say(f"{name}: passed in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
