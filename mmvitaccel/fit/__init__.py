"""Checks before a run that model, data, evaluators, checkpoint and schedule match.

Definite mistakes raise a :class:`~mmvitaccel.errors.UserError` with the place, both values and the
remedy. Possible mistakes cause one warning.
"""
