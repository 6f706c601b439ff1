"""Models on video: step-by-step recognition of streams, and cached features of clips."""
