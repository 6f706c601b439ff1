"""Dense attention and what it needs: windows, relative positions, rotary positions, pooling."""
