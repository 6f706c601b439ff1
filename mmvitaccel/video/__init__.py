"""Models on video: streams recognised step by step, and features of clips kept on disk."""
