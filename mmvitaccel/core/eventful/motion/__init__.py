"""Moving cameras: a stream's state is kept in the coordinates of its scene."""
