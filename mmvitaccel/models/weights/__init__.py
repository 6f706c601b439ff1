"""Loading weights that have to fit."""
