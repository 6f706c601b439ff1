"""The name that ``mmaction.models.localizers`` imports; the model itself is not in the wheel."""

from __future__ import annotations

from mmaction.registry import MODELS


@MODELS.register_module()
class DRN:
    """Says on construction why mmaction2's DRN localizer cannot be built.

    Raises:
        NotImplementedError: Always.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            "DRN: the installed mmaction2 was packaged without mmaction/models/localizers/drn; "
            "install mmaction2 from source (pip install "
            "git+https://github.com/open-mmlab/mmaction2) to use this localizer."
        )
