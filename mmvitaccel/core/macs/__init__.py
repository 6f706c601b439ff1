"""Counting multiply-adds while a model runs."""
