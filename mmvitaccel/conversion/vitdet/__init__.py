"""Layouts of ViTDet weights, and of pre-trained image transformers."""
