"""From what is on disk and what operators want to what is served."""
