"""Models in service: over many videos, with engines that other projects make."""
