"""The transport on grpcio's public asyncio API."""
