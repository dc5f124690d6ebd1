"""Runs the models without a server. For each line "MODEL BATCH SECONDS" of its input, it prints "ROWS SECONDS
CPU_SECONDS"."""

from __future__ import annotations

import sys
import time

import numpy as np
from sessions import row_shape, say, sessions


def main(root: str) -> None:
    """Runs until the input ends."""
    models = sessions(root)
    say("ready")
    for line in sys.stdin:
        name, batch, seconds = line.split()
        model = models[name]
        x = np.ones((int(batch), *row_shape(model, "x")), np.float32)
        model.run(None, {"x": x})
        rows, cpu = 0, time.process_time()
        began = now = time.perf_counter()
        while now < began + float(seconds):
            model.run(None, {"x": x})
            rows += int(batch)
            now = time.perf_counter()
        print(rows, now - began, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
