"""The blocking client: `Client` and `PredictStream`."""
