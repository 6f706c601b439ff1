"""The definition of a layout, and the names that several layouts share."""
