from support.lifecycle_fixtures import disk, house, make_house

__all__ = ["disk", "house", "make_house"]
