"""Measurements of models: multiply-adds, time, accuracy against cost, heads and channels."""
