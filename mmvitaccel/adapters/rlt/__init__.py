"""Attaches run-length tokenization to video transformers."""
