"""Compiled kernels: C++ sources and their torch operators."""
