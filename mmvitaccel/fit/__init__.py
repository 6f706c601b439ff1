"""Checks before a run that model, data, evaluators, checkpoint and schedule match.

Definite mistakes raise a :class:`~mmvitaccel.errors.UserError` that names the key, both values and
the fix. Possible mistakes cause one warning.
"""
