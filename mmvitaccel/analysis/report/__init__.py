"""HTML report of a run's work directory."""
