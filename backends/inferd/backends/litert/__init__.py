"""The LiteRT (TensorFlow Lite) backend."""
