"""TensorFlow Serving's API: what gRPC and REST mean by it alike."""
