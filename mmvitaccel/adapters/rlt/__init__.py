"""Run-length tokenization on a model: attachment, and what differs from host to host."""
