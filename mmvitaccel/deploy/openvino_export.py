"""Export a config's detector or backbone to OpenVINO, in int8 too, and compare with torch."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmvitaccel.deploy.onnx_export import Size, export_module
from mmvitaccel.errors import UserError
from mmvitaccel.extras import require

if TYPE_CHECKING:
    import openvino

Run = Callable[[Tensor], list[Tensor]]


def export_openvino(
    module: nn.Module,
    size: Size,
    path: str | Path,
    dynamic: bool = True,
    calibration: Iterable[Tensor] | None = None,
) -> None:
    """Write a module as ``NAME.xml`` and ``NAME.bin``, with input ``images``, by way of ONNX.

    Args:
        module: See :func:`~mmvitaccel.deploy.onnx_export.export_module`.
        size: Batch, height and width of the input that it is traced with.
        path: The file ``NAME.xml``; its folder must be there.
        dynamic: Whether batch, height and width are free.
        calibration: Images (B, C, H, W) as the module will see them: weights and activations are
            quantised to int8 by NNCF's post-training quantisation. None leaves float32.

    Raises:
        UserError: A package is missing, an operator cannot be expressed, a method cannot be in a
            file, or images have another size than a fixed one.
    """
    require("deploy", "openvino", *(["nncf"] if calibration is not None else []))
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "graph.onnx")
        export_module(module, size, graph, dynamic)
        model = openvino.convert_model(graph)
    if calibration is not None:
        model = _quantised(model, module, calibration, None if dynamic else size)
    # The default would round the weights to float16
    openvino.save_model(model, path, compress_to_fp16=False)


def _quantised(
    model: openvino.Model, module: nn.Module, images: Iterable[Tensor], size: Size | None
) -> openvino.Model:
    import nncf

    inputs = [batch.numpy() for batch in images]
    if not inputs:
        raise UserError("int8: no image to calibrate with; the training set is empty.")
    for batch in inputs:
        shape = (batch.shape[0], *batch.shape[2:])
        if size is not None and shape != size:
            raise UserError(
                f"int8: the file is fixed to {' x '.join(map(str, size))} and an image of the "
                f"training set is {' x '.join(map(str, shape))}; set --shape to the size that the "
                "test's pipeline makes, or leave --static out."
            )
    nncf.set_log_level(logging.ERROR)
    attends = any("attention" in type(m).__name__.lower() for m in module.modules())
    options: dict[str, Any] = {"model_type": nncf.ModelType.TRANSFORMER} if attends else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs), **options)


def open_openvino(path: str | Path | openvino.Model, precision: str = "f32") -> Run:
    """Load a file for the CPU, tuned for latency, with as many threads as torch uses.

    Args:
        path: ``NAME.xml``, or a model.
        precision: Of what is not int8: ``f32``, or ``bf16`` on processors that have instructions
            for it. Without being told, OpenVINO takes bf16 there.

    Returns:
        Images (B, C, H, W) to the outputs in their order.

    Raises:
        UserError: OpenVINO is not installed, or would compute in another precision than asked.
    """
    require("deploy", "openvino")
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    network = _core().compile_model(path, "CPU", hints)
    given = network.get_property("INFERENCE_PRECISION_HINT").to_string()
    if given != precision:
        raise UserError(f"OpenVINO computes in {given} on this processor, not in {precision}.")
    return lambda x: [torch.from_numpy(out) for out in network(x.numpy()).values()]


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    """The one core of this process, which is never freed.

    On processors with AMX, each core gives its thread a stack for signal handlers, and puts the one
    before it back when it is freed. If that belongs to a core that was freed before, the next
    signal handler crashes the process, such as that of torch's data loaders.
    """
    import openvino

    return openvino.Core()
