"""Importance of a block's channels for the loss, by a first-order Taylor expansion.

``|w * dL/dw|`` summed over the weights of a channel (Molchanov et al., CVPR 2019, eq. 8 without the
square): the first-order change of the loss if the channel is removed. EfficientViT prunes with it
and finds that queries, keys and feed-forward layers have more channels than they need, values fewer
(arXiv 2305.07027, section 2.3, figure 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitaccel.errors import UserError, building, running
from mmvitaccel.loaders.checked import check_loader, without_workers
from mmvitaccel.models.efficientvit.attention import KEY_DIMS, CascadedGroupAttention
from mmvitaccel.models.efficientvit.layers import FeedForward

STRUCTURES = ("Q", "K", "V", "FFN")
Rows = tuple[str, str, nn.Parameter, slice]


def structures(model: nn.Module) -> Iterator[Rows]:
    """Yield the block, the structure, the weight, and the weight's rows of this structure."""
    for name, module in model.named_modules():
        if isinstance(module, CascadedGroupAttention):
            for head, qkv in enumerate(module.qkvs):
                parts = (0, KEY_DIMS, 2 * KEY_DIMS, 2 * KEY_DIMS + module.head_dims)
                for kind, start, stop in zip("QKV", parts[:-1], parts[1:]):
                    yield f"{name}.qkvs.{head}", kind, qkv.c.weight, slice(start, stop)
        elif isinstance(module, FeedForward):
            yield name, "FFN", module.pw1.c.weight, slice(None)
        elif isinstance(getattr(module, "qkv", None), nn.Linear):
            # fused layer of plain transformers: rows of queries, keys and values in this order
            width = module.qkv.out_features // 3
            for index, kind in enumerate("QKV"):
                yield name, kind, module.qkv.weight, slice(index * width, (index + 1) * width)
        elif isinstance(getattr(module, "fc1", None), nn.Linear):
            yield name, "FFN", module.fc1.weight, slice(None)


def taylor_importance(weight: Tensor, gradient: Tensor) -> Tensor:
    """``|w * dL/dw|`` summed over all dimensions but the first: one value per channel."""
    return (weight.detach() * gradient).abs().flatten(1).sum(1)


def channel_importance(model: nn.Module) -> dict[str, dict[str, list[float]]]:
    """Importance of each channel, from the gradients of a backward pass.

    Returns:
        For each block and structure (``Q``, ``K``, ``V``, ``FFN``), one value per channel.

    Raises:
        UserError: The model has no such structure or no non-zero gradients.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for block, kind, weight, rows in structures(model):
        if weight.grad is not None:
            importance = taylor_importance(weight[rows], weight.grad[rows])
            found.setdefault(block, {})[kind] = importance.tolist()
    if not found:
        raise UserError(
            f"{type(model).__name__}: nothing to rank: it has no trainable attention or "
            f"feed-forward layers of a known kind; check frozen_stages."
        )
    if not any(any(values) for block in found.values() for values in block.values()):
        raise UserError(
            f"{type(model).__name__}: the loss depends on no channel, because untrained blocks "
            f"are the identity; give a trained checkpoint."
        )
    return found


def accumulate_gradients(
    model: nn.Module, cfg: Config, batches: int, skip_broken: bool = False
) -> float:
    """Accumulate gradients of the config's loss on its training data, in eval mode.

    Args:
        model: The model of the config.
        cfg: A config with a ``train_dataloader``.
        batches: Number of batches.
        skip_broken: Whether unreadable samples are replaced by others.

    Returns:
        The mean loss.

    Raises:
        UserError: The data cannot be read, or does not match the model.
    """
    if cfg.get("train_dataloader") is None:
        raise UserError("the config has no train_dataloader, which this tool needs for the loss.")
    with building("train_dataloader"):
        options = without_workers(cfg.train_dataloader)
        loader = check_loader(Runner.build_dataloader(options, seed=0), skip_broken, training=True)
    # Uses running statistics and no stochastic depth, as in inference
    model.eval().zero_grad()
    total, count = 0.0, 0
    for batch in loader:
        with running(model, "model"):
            loss = _loss(model, batch)
        loss.backward()
        total, count = total + loss.item(), count + 1
        if count == batches:
            break
    if not count:
        raise UserError("train_dataloader returned no batch; its data set is empty or unreadable.")
    return total / count


def _loss(model: nn.Module, batch: Any) -> Tensor:
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode="loss")
    return model.parse_losses(losses)[0]


def mean_importance(found: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Mean over all channels of each structure."""
    means = {}
    for kind in STRUCTURES:
        values = [value for block in found.values() for value in block.get(kind, ())]
        if values:
            means[kind] = float(torch.tensor(values).mean())
    return means
