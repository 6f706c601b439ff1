"""The definition of a layout, and names and shapes that several layouts share."""
