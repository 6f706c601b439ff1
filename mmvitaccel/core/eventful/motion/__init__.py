"""Moving cameras: the memory of a stream in the coordinates of its scene."""
