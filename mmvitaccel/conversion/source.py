"""A file of released weights: its tensors, metadata and checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.models.weights.checkpoint import find_weights
from mmvitaccel.models.weights.wrapped import USUAL, Choice, choose_weights

_BLOCK = 1 << 22  # bytes


@dataclass
class Source:
    """Contents of a file.

    Attributes:
        path: Path of the file.
        sha256: Checksum of the file, hexadecimal.
        weights: Tensors by name, without the prefix.
        elsewhere: Names that do not start with the prefix.
        meta: Metadata that mmengine or mmdet stored in the file.
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    elsewhere: list[str]
    meta: dict[str, Any]


def read_source(path: Path, choice: Choice = USUAL) -> Source:
    """Read a file of weights without executing code from it.

    Args:
        path: ``.pth``, ``.pyth``, ``.pkl`` or ``.safetensors``.
        choice: Which weights of the file to use. Only tensors whose names start with its prefix
            are read, and the prefix is removed.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it contains no weights, is already converted, has classes that begin with
            the background, or has no name with the prefix.
    """
    content = safe_load(path, map_location="cpu")
    meta = content.get("meta") if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    if "conversion" in meta:
        raise ValueError(
            f"{path}: it is already converted, from {meta['conversion'].get('format')}; use it as "
            "it is."
        )
    version = str(meta.get("mmdet_version", ""))
    if version.startswith(("0.", "1.")):
        raise ValueError(
            f"{path}: it was written by mmdet {version}, whose classes begin with the background; "
            "upgrade it with mmdet 2's tools/model_converters/upgrade_model_version.py first."
        )
    if isinstance(content, dict) and "blobs" in content:
        raise ValueError(
            f"{path}: it is from Caffe2's Detectron, whose classes begin with the background; "
            "convert it with detectron2 first."
        )
    below = choose_weights(content, str(path), (), choice)
    held = find_weights(content, str(path), choice.entry)
    elsewhere = [n for n in held if choice.prefix and not n.startswith(choice.prefix)]
    return Source(path, checksum(path), below, elsewhere, meta)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_finite(path: Path, weights: dict[str, Tensor]) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        ValueError: If there are any; it names the first tensor.
    """
    bad = [n for n, v in weights.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} of its tensors contain NaN or infinity, first '{bad[0]}'; the "
            "training diverged or the file is damaged, use another one."
        )
