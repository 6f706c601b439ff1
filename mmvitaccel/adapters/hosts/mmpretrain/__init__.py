"""Transformers of mmpretrain."""
