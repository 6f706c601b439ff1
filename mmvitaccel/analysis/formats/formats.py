"""The formats: how each is built from the torch model, and why it may not be possible."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mmvitaccel.adapters.attach import link
from mmvitaccel.analysis.formats.part import GraphPart
from mmvitaccel.core.kernels.export import why_not_exported
from mmvitaccel.deploy.calibration import calibration_images
from mmvitaccel.deploy.onnx_export import Size, export_module, open_session, run_session
from mmvitaccel.deploy.openvino_export import export_openvino, open_openvino
from mmvitaccel.errors import UserError
from mmvitaccel.extras import require
from mmvitaccel.models.efficientvit.compiled import CompiledEfficientViT


@dataclass(frozen=True)
class Source:
    """Source of the formats.

    Attributes:
        cfg: The config.
        part: The part to replace; it has run once.
        shapes: Shapes (B, C, H, W, ...) of the test set's batches.
        folder: Folder for the exported files.
        calibration: Number of images for the calibration of int8.
    """

    cfg: Config
    part: GraphPart
    shapes: Sequence[tuple[int, ...]]
    folder: Path
    calibration: int = 64

    @property
    def methods(self) -> set[str]:
        """Names of the methods on the model."""
        links = [link(module) for module in self.part.modules()]
        return {found.method for found in links if found is not None and found.members}

    @property
    def size(self) -> Size:
        """Batch size, height and width for tracing."""
        return (self.shapes[0][0], *self.shapes[0][2:])

    @property
    def dynamic(self) -> bool:
        """Whether a file needs dynamic sizes."""
        return len(self.shapes) > 1


@dataclass(frozen=True)
class Built:
    """A model in a format.

    Attributes:
        model: Its ``test_step`` runs the artifact.
        replaces: Modules that the artifact replaces.
        size: Size in bytes of the file, or of the saved weights of these modules.
        run: The artifact alone; None for torch's own model.
        file: Whether it is a file, which does not need torch's weights.
    """

    model: nn.Module
    replaces: tuple[str, ...]
    size: int
    run: Callable[[Tensor], Sequence[Tensor]] | None = None
    file: bool = False


def _torch(source: Source) -> Built:
    part = source.part
    return Built(part.model, part.names, _weights_size(part.modules_of()))


def _bfloat16(source: Source) -> Built:
    part = source.part.copied()
    for module in part.modules_of():
        _autocast(module)
    return Built(part.model, part.names, _weights_size(part.modules_of()), part)


def _autocast(module: nn.Module) -> None:
    """Run a module under bfloat16 autocast, with float32 outputs.

    Uses hooks, so attached methods keep working.
    """
    opened: list[torch.autocast] = []

    def enter(*_: Any) -> None:
        opened.append(torch.autocast("cpu", dtype=torch.bfloat16))
        opened[-1].__enter__()

    def leave(_module: nn.Module, _args: Any, out: Any) -> Any:
        opened.pop().__exit__(None, None, None)
        return tree_map(_as_float32, out)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave, always_call=True)


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _compiled_steps(source: Source) -> Built:
    if source.methods:
        raise UserError(
            f"{' and '.join(source.methods)} would be bypassed; test the format without it."
        )
    backbone = source.part.model.backbone
    try:
        compiled = CompiledEfficientViT(backbone)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    only = GraphPart(source.cfg, source.part.model)
    only.names = ("backbone",)
    with torch.no_grad():
        only(torch.zeros(source.shapes[0]))

    def run(images: Tensor) -> list[Tensor]:
        return list(compiled(images))

    return Built(only.replaced_by(run), only.names, _weights_size([backbone]), run)


def _onnx(source: Source) -> Built:
    require("deploy", "onnx", "onnxruntime")
    _check_file_is_possible(source)
    path = source.folder / "model.onnx"
    if not path.is_file():
        export_module(source.part, source.size, path, source.dynamic)
    session = open_session(path)

    def run(images: Tensor) -> list[Tensor]:
        return run_session(session, images)

    return _of_files(source, run, [path])


def _openvino(source: Source) -> Built:
    return _openvino_file(source, source.folder / "model.xml")


def _openvino_bfloat16(source: Source) -> Built:
    return _openvino_file(source, source.folder / "model.xml", precision="bf16")


def _openvino_int8(source: Source) -> Built:
    return _openvino_file(source, source.folder / "model_int8.xml", int8=True)


def _openvino_file(source: Source, path: Path, int8: bool = False, precision: str = "f32") -> Built:
    require("deploy", "onnx", "openvino", *(["nncf"] if int8 else []))
    _check_file_is_possible(source)
    if not path.is_file():
        images = list(_calibration(source)) if int8 else None
        export_openvino(source.part, source.size, path, source.dynamic, images)
    run = open_openvino(path, precision)
    return _of_files(source, run, [path, path.with_suffix(".bin")])


#: In the order in which they are compared.
FORMATS: dict[str, Callable[[Source], Built]] = {
    "torch": _torch,
    "torch-bfloat16": _bfloat16,
    "compiled-steps": _compiled_steps,
    "onnx": _onnx,
    "openvino": _openvino,
    "openvino-bfloat16": _openvino_bfloat16,
    "openvino-int8": _openvino_int8,
}


def build(name: str, source: Source) -> Built:
    """Build a model in a format; existing files in the folder are reused.

    Raises:
        UserError: The format is not possible; the message begins with its name and has the reason.
    """
    try:
        return FORMATS[name](source)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _of_files(
    source: Source, run: Callable[[Tensor], Sequence[Tensor]], files: Sequence[Path]
) -> Built:
    size = sum(file.stat().st_size for file in files)
    return Built(source.part.replaced_by(run), source.part.names, size, run, file=True)


def _calibration(source: Source) -> Sequence[Tensor]:
    """Images of the training set; for a file of fixed size, those of this size."""
    images = list(calibration_images(source.cfg, source.calibration))
    if not source.dynamic:
        batch = source.size[0]
        images = [im for im in images if im.shape[1:] == source.shapes[0][1:]]
        images = [im.expand(batch, -1, -1, -1).contiguous() for im in images]
        if not images:
            raise UserError(
                f"no image of the training set has the size {source.shapes[0][2:]} that the test "
                "set has; resize both alike to calibrate int8."
            )
    return images


def _check_file_is_possible(source: Source) -> None:
    """Refuse models that cannot be exported to a file."""
    for method in sorted(source.methods - {"ToMe"}):
        raise UserError(why_not_exported(method))
    if len(source.shapes[0]) != 4:
        raise UserError(
            f"its backbone takes clips {tuple(source.shapes[0])}, but only image models (B, C, "
            f"H, W) can be exported."
        )
    if source.methods and source.dynamic:
        raise UserError(
            f"a file with ToMe has a fixed image size, but the test set has {len(source.shapes)} "
            f"sizes; resize to one size in the test pipeline."
        )


def _weights_size(modules: Sequence[nn.Module]) -> int:
    """Bytes of the modules' weights, saved by torch."""
    file = io.BytesIO()
    torch.save([module.state_dict() for module in modules], file)
    return file.tell()
