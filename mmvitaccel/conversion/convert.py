"""Conversion of released weights to a checkpoint for this project's configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmvitaccel.conversion.catalogue import LAYOUTS, recognise
from mmvitaccel.conversion.layout.layout import Adapted, Layout
from mmvitaccel.conversion.report import Entry, Report
from mmvitaccel.conversion.source import Source, check_finite, read_source
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.version import __version__
from mmvitaccel.whole_files import check_folder, whole_file


def convert_file(source: Path, target: Path, layout: str = "", choice: Choice = USUAL) -> Report:
    """Convert a file of weights to a checkpoint of mmengine.

    Args:
        source: Released weights: ``.pth``, ``.pyth``, ``.pkl`` or ``.safetensors``.
        target: The ``.pth`` file to write, with ``state_dict`` and ``meta``.
        layout: Name of the layout; by default it is recognised.
        choice: Which weights of the file to use, and the prefix of their names.

    Returns:
        The layout and what was done with each tensor.

    Raises:
        FileNotFoundError: If the source does not exist.
        ValueError: If the source cannot be read, has no known layout or is incomplete, or if the
            target's name is wrong. Nothing is written.
        UserError: If the target cannot be written.
    """
    check_folder(target.parent, 0, f"the checkpoint {target.name}")
    if target.suffix == ".safetensors" or target.resolve() == source.resolve():
        raise ValueError(
            f"{target}: the result is a .pth file and cannot replace the source; give another name "
            "that ends in .pth."
        )
    read = read_source(source, choice)
    chosen = find_layout(read.weights, str(source), layout)
    weights, report = convert_weights(read.weights, chosen, str(source))
    report.entries += [Entry(n, "left over", note="outside the prefix") for n in read.elsewhere]
    check_finite(source, weights)
    write(target, weights, metadata(read, chosen, report))
    return report


def find_layout(weights: Mapping[str, Tensor], source: str, name: str = "") -> Layout:
    """Recognise the layout of weights by their parameter names, or look up the named one.

    Args:
        weights: Tensors by their names in the file.
        source: Path of the file, for messages.
        name: Name of a layout; empty to recognise it.

    Raises:
        ValueError: If the name is unknown or no layout is recognised.
    """
    known = {layout.name: layout for layout in LAYOUTS}
    if name and name not in known:
        raise ValueError(f"--format {name} is not known; known are {', '.join(known)}.")
    if name:
        return known[name]
    layout = recognise(weights)
    if layout is not None:
        return layout
    names = ", ".join(f"'{n}'" for n in list(weights)[:3])
    raise ValueError(
        f"{source}: its parameter names ({names}, ...) match no known layout ({', '.join(known)}); "
        "give released weights of one of these layouts, or the --prefix of the names."
    )


def convert_weights(
    weights: Mapping[str, Tensor], layout: Layout, source: str
) -> tuple[dict[str, Tensor], Report]:
    """Rename and adapt weights, and check that they are complete.

    Args:
        weights: Tensors by their names in the file.
        layout: Layout of the file.
        source: Path of the file, for messages.

    Returns:
        Tensors by this project's names, and the report.

    Raises:
        ValueError: If a tensor is missing, duplicate or has the wrong shape, or if the weights
            cannot be adapted.
    """
    renaming = {name: layout.targets(name, weights) for name in weights}
    check_duplicates(renaming, source)
    adapted = Adapted({t: weights[name] for name, targets in renaming.items() for t in targets})
    if not adapted.weights:
        raise ValueError(
            f"{source}: none of its names belongs to {layout.title} (the first is "
            f"'{next(iter(weights))}'); give the --format of this file."
        )
    try:
        if layout.adapt is not None:
            layout.adapt(adapted, weights)
        needed = layout.needed(adapted.weights)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    check_complete(adapted.weights, needed, layout, source)
    entries = []
    for name, targets in renaming.items():
        notes = [adapted.changes[t] for t in targets if t in adapted.changes]
        if not targets:
            entry = Entry(name, "left over", note=layout.reason(name))
        elif notes:
            entry = Entry(name, "resized", targets, notes[0])
        else:
            entry = Entry(name, "used" if targets == (name,) else "renamed", targets)
        entries.append(entry)
    report = Report(layout.name, layout.title, entries, adapted.settings, adapted.classes)
    return adapted.weights, report


def check_duplicates(renaming: Mapping[str, tuple[str, ...]], source: str) -> None:
    """Check that no two tensors of the file have the same target name.

    Args:
        renaming: Target names by names in the file.
        source: Path of the file, for messages.

    Raises:
        ValueError: If two tensors do; it names the first two.
    """
    taken: dict[str, str] = {}
    for name, targets in renaming.items():
        for target in targets:
            if target in taken:
                raise ValueError(
                    f"{source}: '{taken[target]}' and '{name}' would both become '{target}'; give "
                    "the --prefix of one model."
                )
            taken[target] = name


def check_complete(
    weights: Mapping[str, Tensor],
    needed: Mapping[str, tuple[int, ...]],
    layout: Layout,
    source: str,
) -> None:
    """Check that every tensor of the model is present and has the right shape.

    Args:
        weights: Tensors by this project's names.
        needed: Shapes of the complete model by this project's names.
        layout: Layout of the file.
        source: Path of the file, for messages.

    Raises:
        ValueError: If a tensor is missing or has the wrong shape; it names the first one.
    """
    missing = [name for name in needed if name not in weights]
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of the {len(needed)} tensors of {layout.name} are missing, "
            f"first '{missing[0]}'; the file is truncated or belongs to another model."
        )
    for name, shape in needed.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(
                f"{source}: '{name}' has shape {tuple(weights[name].shape)}, but {layout.name} "
                f"needs {shape}; the file belongs to another model."
            )


def metadata(source: Source, layout: Layout, report: Report) -> dict:
    """Return the metadata of the result; OpenMMLab's inferencers read ``dataset_meta``."""
    meta: dict = dict(
        conversion=dict(
            format=layout.name,
            source=source.path.name,
            source_sha256=source.sha256,
            mmvitaccel_version=__version__,
            settings=dict(report.settings),
        )
    )
    known = source.meta.get("dataset_meta") or source.meta
    classes = known.get("classes") or known.get("CLASSES") or report.classes
    if classes:
        meta["dataset_meta"] = dict(classes=tuple(classes))
    return meta


def write(target: Path, weights: Mapping[str, Tensor], meta: dict) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: If the folder is not writable or its disk is full.
    """
    plain = {name: value.detach().clone().contiguous() for name, value in weights.items()}
    size = sum(value.numel() * value.element_size() for value in plain.values())
    check_folder(target.parent, size, f"the checkpoint {target.name}")
    with whole_file(target) as file:
        torch.save({"state_dict": plain, "meta": meta}, file)
