"""Models made of other models: their definition and how they are loaded."""
