"""Incremental attention in the modes delta, exact and token-wise (section 4.2)."""
