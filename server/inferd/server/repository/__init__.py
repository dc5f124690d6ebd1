"""The model repository on disk: what lies there, read with care."""
