"""The TensorFlow SavedModel backend."""
