"""``python -m mmvitaccel.env``: check the installed packages and print how to fix problems.

Packages are looked up by their import name, so that forks with another distribution name are found.
Only the standard library is needed. The exit status is 0 if an EfficientViT detector can be trained
and tested, else 1.
"""
