"""Shared by all protocols: the error boundary, streams, health, reflection."""
