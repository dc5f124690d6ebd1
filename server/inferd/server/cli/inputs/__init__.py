"""A model's inputs from the command line."""
