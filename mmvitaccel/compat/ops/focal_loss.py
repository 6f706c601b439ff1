"""The sigmoid focal loss (Lin et al., ICCV 2017), which mmdet calls through mmcv on a GPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmvitaccel.compat.ops.precision import widen


def sigmoid_focal_loss_forward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``output`` with the loss of every logit: -alpha_t (1 - p_t)^gamma log(p_t), eq. 5.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class of each row; C is the background, positive for no column.
        weight: (C,) weight of each row's class, or empty for none.
        output: (N, C), filled.
        gamma: Focusing parameter.
        alpha: Weight of the positive entries; the others get 1 - alpha.
    """
    logits = widen(input)
    p, log_p, log_not_p = logits.sigmoid(), F.logsigmoid(logits), F.logsigmoid(-logits)
    loss = torch.where(
        _is_positive(logits, target),
        -alpha * (1 - p) ** gamma * log_p,
        -(1 - alpha) * p**gamma * log_not_p,
    )
    output.copy_(_weigh(loss, target, weight))


def sigmoid_focal_loss_backward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of each loss for its own logit.

    Args:
        input: (N, C) logits.
        target: (N,) int64.
        weight: (C,) or empty.
        grad_input: (N, C), filled.
        gamma: Focusing parameter.
        alpha: Weight of the positive entries.
    """
    logits = widen(input)
    p, log_p, log_not_p = logits.sigmoid(), F.logsigmoid(logits), F.logsigmoid(-logits)
    grad = torch.where(
        _is_positive(logits, target),
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_not_p - p),
    )
    grad_input.copy_(_weigh(grad, target, weight))


def _is_positive(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device)
    return target[:, None] == classes  # (N, 1) against (C,) -> (N, C)


def _weigh(values: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return values * weight[target][:, None] if weight.numel() else values
