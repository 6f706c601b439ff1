"""Budgets: what a frame may cost, held by a controller of Eventful's k and ToMe's r."""
