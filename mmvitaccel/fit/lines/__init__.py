"""What a line of a list says, by the data set that reads it."""
