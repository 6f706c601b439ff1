"""Compiled kernels: each C++ source and the operators made of it."""
