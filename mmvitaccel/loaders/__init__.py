"""Data loaders that name, or skip and count, the files that cannot be read."""
