"""Whether model, data, evaluators, checkpoint and schedule belong together, before a run starts.

What is certain to be wrong is a :class:`~mmvitaccel.errors.UserError`: what, where, both values
and the cure. What may be meant is one warning.
"""
