"""Checks of samplers, optimizers, hooks that begin late, and settings of a resumed training."""
