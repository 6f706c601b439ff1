"""Models and baselines that the tests and the benchmarks share."""
