"""Which of a block's channels the loss depends on: first-order Taylor importance.

``|w * dL/dw|`` summed over the weights that make a channel (Molchanov et al., CVPR 2019, eq. 8
without the square): how much the loss would change, to first order, without it. EfficientViT prunes
by it and finds queries, keys and feed-forward channels wide and values narrow for what they give
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
from mmvitaccel.models.efficientvit.layers import KEY_DIMS, CascadedGroupAttention, FeedForward

STRUCTURES = ("Q", "K", "V", "FFN")
Rows = tuple[str, str, nn.Parameter, slice]


def structures(model: nn.Module) -> Iterator[Rows]:
    """Yield block, structure, weight and the rows of it that are channels of this structure."""
    for name, module in model.named_modules():
        if isinstance(module, CascadedGroupAttention):
            for head, qkv in enumerate(module.qkvs):
                parts = (0, KEY_DIMS, 2 * KEY_DIMS, 2 * KEY_DIMS + module.head_dims)
                for kind, start, stop in zip("QKV", parts[:-1], parts[1:]):
                    yield f"{name}.qkvs.{head}", kind, qkv.c.weight, slice(start, stop)
        elif isinstance(module, FeedForward):
            yield name, "FFN", module.pw1.c.weight, slice(None)
        elif isinstance(getattr(module, "qkv", None), nn.Linear):
            # the fused layer of plain transformers: queries, keys and values one after the other
            width = module.qkv.out_features // 3
            for index, kind in enumerate("QKV"):
                yield name, kind, module.qkv.weight, slice(index * width, (index + 1) * width)
        elif isinstance(getattr(module, "fc1", None), nn.Linear):
            yield name, "FFN", module.fc1.weight, slice(None)


def taylor_importance(weight: Tensor, gradient: Tensor) -> Tensor:
    """``|w * dL/dw|`` summed over all but the first dimension: one number a channel."""
    return (weight.detach() * gradient).abs().flatten(1).sum(1)


def channel_importance(model: nn.Module) -> dict[str, dict[str, list[float]]]:
    """Importance of each channel, from the gradients that a backward pass left.

    Returns:
        By block, by structure (``Q``, ``K``, ``V``, ``FFN``): one number a channel.

    Raises:
        UserError: The model has no such structure, no gradients, or none that is not 0.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for block, kind, weight, rows in structures(model):
        if weight.grad is not None:
            importance = taylor_importance(weight[rows], weight.grad[rows])
            found.setdefault(block, {})[kind] = importance.tolist()
    if not found:
        raise UserError(
            f"{type(model).__name__}: nothing to rank, it has no attention or feed-forward layers "
            "of a known kind that learn; see frozen_stages."
        )
    if not any(any(values) for block in found.values() for values in block.values()):
        raise UserError(
            f"{type(model).__name__}: the loss depends on no channel, since blocks that were never "
            "trained begin as the identity; give a trained checkpoint."
        )
    return found


def accumulate_gradients(
    model: nn.Module, cfg: Config, batches: int, skip_broken: bool = False
) -> float:
    """Let the config's loss on its training data leave gradients, in eval mode.

    Args:
        model: The config's.
        cfg: With a ``train_dataloader``.
        batches: How many batches are summed up.
        skip_broken: Whether another sample takes the place of one that cannot be read.

    Returns:
        The mean loss.

    Raises:
        UserError: The data cannot be read, or does not fit the model.
    """
    if cfg.get("train_dataloader") is None:
        raise UserError("the config has no train_dataloader; the loss is taken on its data.")
    with building("train_dataloader"):
        options = without_workers(cfg.train_dataloader)
        loader = check_loader(Runner.build_dataloader(options, seed=0), skip_broken, training=True)
    # reason: with running statistics and without dropped paths, as the model is used
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
        raise UserError("train_dataloader gives no batch; its data set is empty or all broken.")
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
