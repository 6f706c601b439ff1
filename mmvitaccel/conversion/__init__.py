"""Released weights to this project's names: a file for each layout, and what they share."""
