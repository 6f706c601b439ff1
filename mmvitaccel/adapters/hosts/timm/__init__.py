"""Transformers of timm."""
