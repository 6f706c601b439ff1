"""Export a config's detector or backbone to ONNX, and compare the file with torch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvitaccel.adapters.attach import links
from mmvitaccel.core.kernels.export import why_not_exported
from mmvitaccel.deploy.detection_graph import DetectionGraph
from mmvitaccel.errors import UserError, running
from mmvitaccel.errors.sentence import message_of
from mmvitaccel.extras import require
from mmvitaccel.fit.check import SPLITS, check_model, check_start
from mmvitaccel.fit.heads import backbone_of
from mmvitaccel.hooks.deploy_hook import fold_model
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.attached_hooks import attach_hooks
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.session import build_model

if TYPE_CHECKING:
    import onnxruntime

Size = tuple[int, int, int]
CHECKED_SIZES: tuple[Size, ...] = ((1, 96, 64), (2, 160, 256), (1, 200, 170), (3, 224, 224))
"""Batch, height and width: maps that fit into a window of 7, windows padded and whole."""
OPSET = 17
TOLERANCE = 1e-3
"""Largest error accepted, as a part of the largest value of an output; boxes: of the image."""


@dataclass(frozen=True)
class Check:
    """The file's output against torch's for one input.

    Attributes:
        size: Batch, height and width.
        error: The largest difference, as a part of the largest value of the output; of matched
            detections for a detector, as a part of the image.
        detections: How many torch found, None of a backbone.
        unmatched: How many of these the file lacks.
    """

    size: Size
    error: float
    detections: int | None = None
    unmatched: int = 0

    @property
    def passed(self) -> bool:
        """Whether the file computes the same; one in a hundred boxes may turn on a rounding."""
        return self.error <= TOLERANCE and self.unmatched <= 0.01 * (self.detections or 0)


def build_part(
    cfg: Config,
    checkpoint: str | None,
    part: str,
    suppress: bool,
    choice: Choice = USUAL,
) -> nn.Module:
    """The module to export, in eval mode, with every BatchNorm folded that can be.

    What the config's hooks attach to a model, such as ToMe, is on it.

    Args:
        cfg: A detector's; of any model with a backbone for ``part='backbone'``.
        checkpoint: A trained one's; None leaves the weights at random.
        part: ``model`` for pixels to boxes, or ``backbone``.
        suppress: Whether overlapping boxes are removed in the graph.
        choice: Which weights in the checkpoint.

    Raises:
        UserError: The model cannot be built, has no such part, or its parts and the config's data
            do not belong together.
    """
    model = build_model(cfg)
    check_model(cfg, model, *SPLITS)
    if checkpoint is not None:
        meta = check_checkpoint(model, checkpoint, choice=choice)
        check_start(cfg, checkpoint, meta, True, "test")
    attach_hooks(cfg, model)
    model.eval()
    model.requires_grad_(False)
    if any(hasattr(module, "switch_to_deploy") for module in model.modules()):
        fold_model(model)
    if part == "model":
        # The exporter puts the mode of the outermost module back on all of them
        return DetectionGraph(model, suppress).eval()
    backbone = backbone_of(model)
    if backbone is None:
        raise UserError(f"model: {type(model).__name__} has no backbone; give --part model.")
    return backbone


def _check_methods(module: nn.Module, dynamic: bool) -> None:
    """Refuse methods that a file cannot hold, or not for every size."""
    found = {on.method for part in module.modules() for on in links(part) if on.members}
    for method in sorted(found - {"ToMe"}):
        raise UserError(why_not_exported(method))
    if dynamic and found:
        raise UserError(
            "ToMe: how many tokens each block merges belongs to one size of image, so a file for "
            "every size would be wrong; give --static and the --shape to use."
        )


def output_names(module: nn.Module, example: Tensor) -> list[str]:
    """``dets`` and ``labels``, or the backbone's levels from ``level0``."""
    if isinstance(module, DetectionGraph):
        return ["dets", "labels"]
    with torch.no_grad(), running(module, f"an input of {tuple(example.shape)}", every_error=True):
        return [f"level{i}" for i in range(len(module(example)))]


def export_module(
    module: nn.Module, size: Size, path: str | Path, dynamic: bool = True, opset: int = OPSET
) -> None:
    """Write a module as an ONNX file, with input ``images``.

    Args:
        module: Of :func:`build_part`, or a backbone with its BatchNorm folded.
        size: Batch, height and width of the input that it is traced with.
        path: The file; its folder must be there.
        dynamic: Whether batch, height and width are free.
        opset: Version of ONNX's operators.

    Raises:
        UserError: The package ``onnx`` is missing, an operator cannot be expressed, or a method
            is on the module that a file cannot hold, or not for every size.
    """
    require("deploy", "onnx")
    _check_methods(module, dynamic)
    example = example_images(size, image_channels(module))
    names = output_names(module, example)
    axes: Mapping[str, dict[int, str]] = {}
    if dynamic:
        axes = {name: {0: "batch"} for name in names}
        axes["images"] = {0: "batch", 2: "height", 3: "width"}
        if not isinstance(module, DetectionGraph):
            for name in names:
                axes[name] |= {2: f"{name}_height", 3: f"{name}_width"}
    # The exporter of torch.export takes the window's branches for conditions on the size
    # and refuses one graph for all; torch 2.1 has this one only and no such argument
    has_two = "dynamo" in inspect.signature(torch.onnx.export).parameters
    with warnings.catch_warnings(), torch.no_grad(), running(module, "export", every_error=True):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=["images"],
            output_names=names,
            dynamic_axes=axes,
            opset_version=opset,
            **(dict(dynamo=False) if has_two else {}),
        )


def check_file(
    module: nn.Module, path: str | Path, sizes: Sequence[Size] = CHECKED_SIZES
) -> list[Check]:
    """Run a file and the module that it was exported from on inputs of several sizes.

    Raises:
        UserError: The package ``onnxruntime`` is missing, or the file does not take an input.
    """
    session = open_session(path)
    batches = [example_images(size, image_channels(module)) for size in sizes]
    return check_outputs(module, lambda images: run_session(session, images), batches)


def check_outputs(
    module: nn.Module, run: Callable[[Tensor], Sequence[Tensor]], batches: Iterable[Tensor]
) -> list[Check]:
    """Compare what a file gives with what the module gives that it was exported from.

    Args:
        module: Of :func:`build_part`.
        run: Images (B, C, H, W) to the file's outputs.
        batches: Images.

    Raises:
        UserError: The file does not take an input.
    """
    checks = []
    for images in batches:
        size = (images.shape[0], *images.shape[2:])
        with torch.no_grad(), running(module, f"an input of {size}", every_error=True):
            expected = module(images)
        try:
            given = run(images)
        except Exception as error:
            raise UserError(
                f"an input of {size}: {message_of(error)}; this file does not accept every size: "
                "give --static and the --shape to use."
            ) from error
        if isinstance(module, DetectionGraph):
            checks.append(compare_detections(size, expected, given))
        else:
            error = max(relative_error(a, b) for a, b in zip(given, expected))
            checks.append(Check(size, error))
    return checks


def compare_detections(size: Size, expected: Sequence[Tensor], given: Sequence[Tensor]) -> Check:
    """Match each of torch's detections with the closest of the file's in its image and class.

    Args:
        size: Of the input: batch, height and width.
        expected: ``dets`` and ``labels`` as :class:`DetectionGraph` gives them, torch's.
        given: The file's. Their order may differ, where scores do by a rounding.
    """
    scale = expected[0].new_tensor([1 / max(size[1:])] * 4 + [1.0])
    errors: list[float] = []
    for dets, labels, own, own_labels in zip(*expected, *given):
        # the class as one coordinate more, far apart: found, 6 and K, 6
        one = torch.cat([dets * scale, 10.0 * labels[:, None]], 1)[labels >= 0]
        other = torch.cat([own * scale, 10.0 * own_labels[:, None]], 1)
        errors += torch.cdist(one, other, p=torch.inf).amin(1).tolist()
    matched = [error for error in errors if error <= TOLERANCE]
    return Check(size, max(matched, default=0.0), len(errors), len(errors) - len(matched))


def relative_error(given: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value; infinite for another shape."""
    if given.shape != expected.shape:
        return float("inf")
    most = expected.abs().max().clamp(min=1e-12)
    return float((given - expected).abs().max() / most)


def open_session(path: str | Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a file with ONNX Runtime, on the CPU.

    Args:
        path: The file.
        threads: As many as torch uses by default.
    """
    require("deploy", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, images: Tensor) -> list[Tensor]:
    """Run a session of :func:`open_session` on images (B, C, H, W)."""
    return [torch.from_numpy(out) for out in session.run(None, {"images": images.numpy()})]


def image_channels(module: nn.Module) -> int:
    """Channels of the images that a backbone or detector takes: those of its first convolution."""
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return convolutions[0].in_channels if convolutions else 3


def example_images(size: Size, channels: int = 3) -> Tensor:
    """Random pixels (B, channels, H, W), the same for a size each time."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)
