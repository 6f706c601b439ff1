"""Models registered under the scope ``mmvitaccel``."""
