"""Mutated inputs of everything that reads what users bring, for tests and endurance runs."""
