"""`inferd bench`: load on a model, and reports of it."""
