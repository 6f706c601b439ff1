"""Eventful computing on a model: attachment, streams and handles."""
