"""Layouts of EfficientViT weights."""
