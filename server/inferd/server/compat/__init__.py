"""Readers of Triton's and TensorFlow Serving's configuration files."""
