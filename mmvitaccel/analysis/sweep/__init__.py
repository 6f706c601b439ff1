"""One set of weights tested at many operating points."""
