"""Models, baselines and helpers that tests and benchmarks share."""
