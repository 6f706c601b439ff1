"""Eventful Transformers (Dutson et al., ICCV 2023, arXiv 2308.13494)."""
