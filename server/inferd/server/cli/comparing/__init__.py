"""The commands that run versions of a model beside each other: compare, optimise."""
