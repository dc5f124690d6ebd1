"""The Open Inference Protocol in Triton's superset: what gRPC and REST mean by it alike."""
