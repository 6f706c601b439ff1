"""Checks of data sets that say only when they are built which classes and labels they have."""
