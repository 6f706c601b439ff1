"""Whether the host can read a number from a tensor without waiting for a device."""

from __future__ import annotations

import torch


def reading_is_free(device: torch.device) -> bool:
    """True on a CPU; elsewhere a read waits until all queued work is done."""
    return device.type == "cpu"
