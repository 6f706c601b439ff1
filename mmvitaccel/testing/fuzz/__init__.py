"""Mutated inputs for all code that reads user input, for tests and endurance runs."""
