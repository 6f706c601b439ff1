"""What methods that remember streams share: a batch of frames, each with its stream's memory."""
