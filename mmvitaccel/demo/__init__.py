"""The demonstrations that ``make demo`` and ``make demo-video`` run."""
