"""TensorFlow Serving's API over REST: /v1."""
