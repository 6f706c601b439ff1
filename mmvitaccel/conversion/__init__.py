"""Conversion of released weights to this project's parameter names, with one file per layout."""
