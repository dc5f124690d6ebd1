"""What a model goes through before it takes requests: samples, warm-up, the batching probe."""
