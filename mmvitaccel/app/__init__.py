"""A page for the browser: choose a clip and a model, set a budget, and see cost and result live.

``python -m mmvitaccel.app`` starts it; it needs the extras ``app`` and ``video``.
"""
