"""Records of benchmarks in the repository: rows, command and machine."""
