"""The first step of temporal fine-tuning: ViViT's spatial encoder over a data set, kept on disk.

The spatial encoder is frozen while the temporal one learns to live with what eventful computing
left out, so its outputs can be computed once. They are of the deterministic views of the test
pipeline, as in the paper (Eventful Transformers, section 5.2).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from mmvitaccel.errors import UserError, building, running
from mmvitaccel.loaders.checked import check_loader
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.attached_hooks import attach_hooks
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.session import build_model
from mmvitaccel.runner.tested_data import training_data
from mmvitaccel.whole_files import sha256_of

INDEX_FILE = "index.json"
WEIGHTS_FILE = "weights.pth"
SPLITS = ("train", "val")

Progress = Callable[[str, int, int], None]


def cache_spatial(
    cfg: Config,
    checkpoint: str,
    out_dir: Path,
    splits: tuple[str, ...] = SPLITS,
    part: tuple[int, int] = (0, 1),
    batch_size: int = 1,
    num_workers: int = 2,
    progress: Progress | None = None,
    choice: Choice = USUAL,
) -> None:
    """Write ``<out_dir>/<split>/{index.json,000000.npy,...}`` and ``<out_dir>/weights.pth``.

    Clips that are there already are left out, so that a second call goes on where the first was
    stopped. ``weights.pth`` is the checkpoint, for the training that follows to start from.

    Args:
        cfg: A recognizer with a ViViT, eventful or not. ``train`` is the data of its
            ``train_dataloader``, ``val`` that of its ``test_dataloader``, both through the
            pipeline of the latter.
        checkpoint: Its weights.
        out_dir: Where the features go.
        splits: Of ``train`` and ``val``.
        part: (i, n): the i-th of n shares of the clips, for n processes at a time.
        batch_size: Clips at a time.
        num_workers: Processes that decode.
        progress: Told after each clip: which split, how many are done, of how many.
        choice: Which weights in the checkpoint.

    Raises:
        UserError: The config, the checkpoint or the data are not fit, or ``out_dir`` was made with
            others.
    """
    model = build_model(cfg)
    check_checkpoint(model, checkpoint, choice=choice)
    backbone = getattr(model, "backbone", None)
    if not hasattr(backbone, "forward_spatial"):
        kind = type(model if backbone is None else backbone).__name__
        raise UserError(
            f"the config has a {kind}, which has no spatial encoder; "
            "give a config with backbone=dict(type='mmvitaccel.ViViT')."
        )
    attach_hooks(cfg, model)
    model.to(get_device()).eval()
    with building("the data sets"):
        datasets = {split: _dataset(cfg, split) for split in splits}
    settings = {"checkpoint": sha256_of(checkpoint), "model": _plain(cfg.model)}
    for split, dataset in datasets.items():
        own = settings | {"dataset": _plain(_dataset_config(cfg, split))}
        _write_index(out_dir / split, dataset, own)
    _keep_weights(model, out_dir)
    for split, dataset in datasets.items():
        _fill(model, dataset, out_dir / split, part, batch_size, num_workers, progress)


def _dataset_config(cfg: Config, split: str) -> dict[str, Any]:
    """The config of a split's data, through the test's pipeline."""
    if split == "train":
        return training_data(cfg)
    if (cfg.get("test_dataloader") or {}).get("dataset") is None:
        raise UserError(f"the config has no test_dataloader; define it to cache the {split} clips.")
    return dict(copy.deepcopy(cfg.test_dataloader.dataset), test_mode=True)


def _dataset(cfg: Config, split: str) -> Dataset:
    return DATASETS.build(_dataset_config(cfg, split))


def _write_index(folder: Path, dataset: Dataset, settings: dict[str, Any]) -> None:
    """Write a split's index, or check that the one that is there is the same."""
    samples = [
        {"file": _file_name(index), "label": _plain(dataset.get_data_info(index)["label"])}
        for index in range(len(dataset))
    ]
    content = json.dumps({"settings": settings, "samples": samples}, indent=1)
    path = folder / INDEX_FILE
    if path.exists():
        if path.read_text() != content:
            raise UserError(
                f"'{folder}' holds features of another model, checkpoint or data set (see its "
                f"{INDEX_FILE}); name another folder or delete it."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda partial: partial.write_text(content))


def _keep_weights(model: nn.Module, out_dir: Path) -> None:
    """Put the checkpoint's weights beside the features."""
    path = out_dir / WEIGHTS_FILE
    if not path.exists():
        weights = {name: value.cpu() for name, value in model.state_dict().items()}
        _replace(path, lambda partial: torch.save({"state_dict": weights}, partial))


@torch.no_grad()
def _fill(
    model: nn.Module,
    dataset: Dataset,
    folder: Path,
    part: tuple[int, int],
    batch_size: int,
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Compute the clips of a split that are not there."""
    own = range(part[0], len(dataset), part[1])
    wanted = [index for index in own if not (folder / _file_name(index)).exists()]
    done = len(own) - len(wanted)
    loader = DataLoader(
        Subset(dataset, wanted),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
    for indices, batch in zip(_groups(wanted, batch_size), check_loader(loader)):
        with running(model, "the spatial encoder"):
            clips = model.data_preprocessor(batch, training=False)["inputs"]
            steps = model.backbone.forward_spatial(clips.flatten(0, 1))  # (B * views, S, C)
        features = steps.unflatten(0, clips.shape[:2]).float().cpu().numpy()
        for index, feature in zip(indices, features):
            _replace(folder / _file_name(index), lambda partial, f=feature: _save(partial, f))
            done += 1
            if progress is not None:
                progress(folder.name, done, len(own))


def _groups(indices: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place and move it there whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _file_name(index: int) -> str:
    return f"{index:07d}.npy"


def _plain(value: Any) -> Any:
    """A config's value, or a label, as JSON gives it back."""
    value = value.to_dict() if hasattr(value, "to_dict") else value
    value = value.tolist() if hasattr(value, "tolist") else value
    return json.loads(json.dumps(value, default=str))
