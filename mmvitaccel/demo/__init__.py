"""The demonstration jobs of the Makefile."""
