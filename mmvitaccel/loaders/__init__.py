"""Data loaders that report unreadable files, or skip and count them."""
