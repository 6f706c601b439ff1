"""Transformers of mmaction2."""
