"""Processes that are started afresh close the stack's gaps before they unpickle their work.

Under ``spawn`` and ``forkserver`` a worker imports whatever its pickled data set names, such as
mmdet, which on mmcv-lite fails unless mmvitaccel is there before. So a process is written down as
built by a function of this package, which its reader imports first.
"""

from __future__ import annotations

import copyreg
from types import ModuleType
from typing import Any


def close_gaps_in_workers(module: ModuleType) -> None:
    """Let every process of ``multiprocessing`` bring this package along.

    Args:
        module: ``multiprocessing.process``.
    """
    module.BaseProcess.__reduce_ex__ = _reduce


def _reduce(process: Any, protocol: int) -> Any:
    build, arguments, *rest = object.__reduce_ex__(process, protocol)
    if build is not copyreg.__newobj__:  # a class that says itself how it is written down
        return build, arguments, *rest
    return _build, arguments, *rest


def _build(kind: type) -> Any:
    """A process without its state; importing this function has closed the gaps."""
    return kind.__new__(kind)
