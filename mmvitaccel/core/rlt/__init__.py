"""Run-length tokenization (Choudhury et al., NeurIPS 2024, arXiv 2411.05222)."""
