"""Baselines: other ways to run a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.deploy.openvino_export import open_openvino
from mmvitaccel.extras import require


def traced(
    model: nn.Module, x: Tensor, then: Callable[[Any], Any] = lambda module: module
) -> Callable[[Tensor], Any]:
    """Trace a model with ``torch.jit.trace``, as EfficientViT's authors deploy theirs.

    Args:
        model: A model in eval mode, with BatchNorm folded.
        x: Example input.
        then: Applied to the traced module.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return then(torch.jit.trace(model, x, check_trace=False))


def traced_and_frozen(model: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """Trace and freeze a model: attention biases are indexed once, as in the authors' code.

    Args:
        model: See :func:`traced`.
        x: Example input.
    """
    return traced(model, x, torch.jit.freeze)


def timm_efficientvit(arch: str) -> nn.Module:
    """Create timm's EfficientViT with BatchNorm folded and without a classifier.

    Args:
        arch: ``m0`` to ``m5``.
    """
    import timm
    from timm.utils import reparameterize_model

    model = timm.create_model(f"efficientvit_{arch}", num_classes=0, global_pool="")
    return reparameterize_model(model.eval().requires_grad_(False))


def compiled(model: nn.Module, x: Tensor, **options: bool) -> Callable[[Tensor], Any]:
    """Compile a model with ``torch.compile`` for the size of the input.

    Args:
        model: A model in eval mode.
        x: Example input; the model runs on it once, which compiles it.
        **options: Options of the inductor.
    """
    function = torch.compile(model, options=options or None, dynamic=False)
    function(x)
    return function


def openvino(
    model: nn.Module, x: Tensor, precision: str = "f32"
) -> Callable[[Tensor], list[Tensor]]:
    """Convert a model to OpenVINO on the CPU for the size of the input, tuned for latency.

    Args:
        model: A model in eval mode; its output is flattened into a list.
        x: Example input.
        precision: ``f32``, or ``bf16`` on processors that have instructions for it.

    Raises:
        UserError: If OpenVINO is not installed or would compute in another precision.
    """
    require("benchmarks", "openvino")
    import openvino as ov

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = ov.convert_model(model, example_input=x)
    graph.reshape(list(x.shape))
    return open_openvino(graph, precision)
