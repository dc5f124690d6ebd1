"""gRPC transports: bytes in, bytes out. `calls` is the seam that both implementations fill."""
