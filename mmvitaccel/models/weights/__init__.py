"""Loading weights with strict checks."""
