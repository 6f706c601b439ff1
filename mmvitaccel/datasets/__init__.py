"""Datasets, samplers and transforms registered under the scope ``mmvitaccel``."""
