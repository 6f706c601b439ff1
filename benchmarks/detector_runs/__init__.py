"""Parts of `benchmarks/detector.py`: its inputs, its frames, its cases and its results."""
