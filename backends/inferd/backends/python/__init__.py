"""The Python backend: `model.py`, plain functions on named arrays."""
