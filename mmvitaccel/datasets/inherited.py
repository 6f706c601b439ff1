"""Arguments of mmengine's data set that it takes in any form and would misread."""

from __future__ import annotations

from typing import Any

from mmvitaccel.arguments import config, flag, path, refuse, whole_number, whole_numbers

_FLAGS = ("serialize_data", "test_mode", "lazy_init")


def checked_options(owner: str, options: dict[str, Any]) -> dict[str, Any]:
    """Check them for a data set with a constructor of mmengine's.

    Args:
        owner: The data set, as users call it.
        options: Names to values; other names are left to mmengine and mmdet.

    Returns:
        The same.

    Raises:
        ValueError: One has no meaning.
    """
    for name in ("ann_file", "data_root"):
        if options.get(name) not in (None, ""):
            path(owner, name, options[name])
    for name in ("metainfo", "filter_cfg", "data_prefix"):
        if name in options:
            config(owner, name, options[name], what="a dict", or_none=name != "data_prefix")
    for name in _FLAGS:
        if name in options:
            flag(owner, name, options[name])
    if "max_refetch" in options:
        whole_number(owner, "max_refetch", options["max_refetch"], least=0)
    if options.get("indices") is not None:
        _check_indices(owner, options["indices"])
    return options


def _check_indices(owner: str, indices: Any) -> None:
    """Check the number of first samples (of last ones below 0), or the places of some."""
    if isinstance(indices, (list, tuple, range)):
        whole_numbers(owner, "indices", indices)
    elif whole_number(owner, "indices", indices) == 0:
        refuse(owner, "indices", indices, "a number of samples other than 0, or a list of places")
