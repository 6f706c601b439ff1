"""A page in the browser: choose a clip and a model, slide the budget, and watch what it costs.

``python -m mmvitaccel.app`` starts it; it needs the extras ``app`` and ``video``.
"""
