"""Families of vision transformers, described to the methods."""
