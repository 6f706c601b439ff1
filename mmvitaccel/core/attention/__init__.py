"""Dense attention, windows, relative positions, rotary positions, pooling."""
