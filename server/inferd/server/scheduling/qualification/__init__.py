"""Qualification of a model before it takes requests: samples, warm-up, the batching probe."""
