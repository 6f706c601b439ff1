"""Stands in for ``mmaction.models.localizers.drn``, which mmaction2's wheel lacks."""
