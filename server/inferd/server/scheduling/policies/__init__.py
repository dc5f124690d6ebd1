"""The scheduler's decisions as parts without threads: fair share, deadlines, lingering, cost."""
