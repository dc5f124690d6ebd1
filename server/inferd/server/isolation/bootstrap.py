"""Starts a worker process in an interpreter in which inferd is not installed. Run as a file, never imported.

PYTHON -I bootstrap.py PATHS DESCRIPTOR PARENT

PATHS are the directories of the package `inferd`, as JSON. They become that package alone: their neighbours, which are
the server's own packages, cannot be imported.
"""

import json
import sys
import types

if __name__ == "__main__":
    package = types.ModuleType("inferd")
    package.__path__ = json.loads(sys.argv[1])
    sys.modules["inferd"] = package

    from inferd.server.isolation.worker import main

    main(sys.argv[2:])
