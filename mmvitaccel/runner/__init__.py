"""Code shared by training and testing: configs, checkpoints, processes and their checks."""
