"""Hooks registered under the scope ``mmvitaccel``."""
