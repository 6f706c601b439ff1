"""This package's own transformers and necks."""
