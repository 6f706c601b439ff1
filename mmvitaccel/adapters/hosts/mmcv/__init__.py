"""Transformer layers of mmcv."""
