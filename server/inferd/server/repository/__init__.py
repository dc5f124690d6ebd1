"""Reads the model repository from disk and lists the models and versions in it."""
