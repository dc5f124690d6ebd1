from support.lifecycle_fixtures import disk, make_stepped, stepped

__all__ = ["disk", "make_stepped", "stepped"]
