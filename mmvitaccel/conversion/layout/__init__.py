"""What a layout of weights is, and the names that several layouts share."""
