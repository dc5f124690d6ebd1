"""inferd's own protocol: inferd.v1, over gRPC."""
