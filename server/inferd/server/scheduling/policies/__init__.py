"""The scheduler's policies: fair share, deadline admission, linger, cost model, strategy. None of them has a thread."""
