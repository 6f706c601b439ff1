"""Layouts of ViTDet weights, and of the image transformers that detectors start from."""
