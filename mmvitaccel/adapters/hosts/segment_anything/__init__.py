"""Transformers of segment_anything."""
