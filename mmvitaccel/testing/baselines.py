"""The ways of others to run a model, which this project's ways are compared with."""

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
    """A model as ``torch.jit.trace`` records it: how EfficientViT's authors deploy theirs.

    Args:
        model: In evaluation mode, folded.
        x: Example input.
        then: What is done with the traced module.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return then(torch.jit.trace(model, x, check_trace=False))


def traced_and_frozen(model: nn.Module, x: Tensor) -> Callable[[Tensor], Any]:
    """The same with the weights as constants: attention biases are looked up once, as in theirs."""
    return traced(model, x, torch.jit.freeze)


def timm_efficientvit(arch: str) -> nn.Module:
    """EfficientViT of timm with its BatchNorm folded, without a classifier.

    Args:
        arch: ``m0`` to ``m5``.
    """
    import timm
    from timm.utils import reparameterize_model

    model = timm.create_model(f"efficientvit_{arch}", num_classes=0, global_pool="")
    return reparameterize_model(model.eval().requires_grad_(False))


def compiled(model: nn.Module, x: Tensor, **options: bool) -> Callable[[Tensor], Any]:
    """The model in ``torch.compile`` for this size of input, compiled now.

    Args:
        model: In evaluation mode.
        x: Example input.
        **options: Of the inductor.
    """
    function = torch.compile(model, options=options or None, dynamic=False)
    function(x)
    return function


def openvino(
    model: nn.Module, x: Tensor, precision: str = "f32"
) -> Callable[[Tensor], list[Tensor]]:
    """The model in OpenVINO on the CPU for this size of input, tuned for latency.

    Args:
        model: In evaluation mode; what it returns is flattened into a list.
        x: Example input.
        precision: ``f32``, or ``bf16`` on processors that have instructions for it.

    Raises:
        UserError: OpenVINO is not installed, or it would compute in another precision than asked.
    """
    require("benchmarks", "openvino")
    import openvino as ov

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = ov.convert_model(model, example_input=x)
    graph.reshape(list(x.shape))
    return open_openvino(graph, precision)
