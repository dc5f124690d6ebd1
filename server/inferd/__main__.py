"""`python -m inferd`: the command line."""

import sys

from inferd.server.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
