"""Stands in for the backport ``importlib_metadata``: the standard library's own module."""

from importlib.metadata import *  # noqa: F403  (an alias has the names of what it stands for)
