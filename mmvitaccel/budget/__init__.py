"""Budgets: limits on the cost of a frame, held by controlling Eventful's k and ToMe's r."""
