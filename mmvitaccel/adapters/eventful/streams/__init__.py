"""Code shared by methods with streams: batches of frames with the states of their streams."""
