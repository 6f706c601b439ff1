"""Metrics registered under the scope ``mmvitaccel``."""
