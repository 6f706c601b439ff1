"""Feature maps that are recomputed only where the map below them changed."""
