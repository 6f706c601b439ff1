"""Parsing of the lines of annotation lists, by the data set that reads them."""
