"""The asyncio client: `AsyncClient` and `AsyncPredictStream`."""
