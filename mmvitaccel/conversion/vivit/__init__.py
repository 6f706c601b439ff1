"""Layouts of ViViT weights."""
