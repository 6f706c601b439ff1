"""Vision transformers of Hugging Face's transformers."""
