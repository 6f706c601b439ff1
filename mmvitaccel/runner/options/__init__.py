"""Overrides of config settings from the command line."""
