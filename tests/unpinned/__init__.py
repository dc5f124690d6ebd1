"""inferd on the newest releases of everything: see `__main__.py`."""
