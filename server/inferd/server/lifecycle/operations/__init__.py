"""What operators ask for, and the overrides that keep it."""
