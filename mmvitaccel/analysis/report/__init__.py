"""A run's work directory as one page."""
