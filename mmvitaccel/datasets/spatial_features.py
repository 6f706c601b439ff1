"""Cached outputs of ViViT's spatial encoder, read from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from mmvitaccel.datasets.inherited import checked_options
from mmvitaccel.registry import DATASETS, TRANSFORMS
from mmvitaccel.text_files import read_text

VIEWS = ("random", "all")


@DATASETS.register_module()
class SpatialFeatures(BaseDataset):
    """Clips as spatial class tokens, for training the temporal encoder by itself.

    Reads the files of ``tools/cache_spatial.py``: ``ann_file`` is the ``index.json`` of a split,
    with one array (views, steps, channels) per clip beside it. A sample has ``features_path``
    and ``label``.

    Args:
        *args: As for :class:`mmengine.dataset.BaseDataset`.
        **kwargs: As for :class:`mmengine.dataset.BaseDataset`.

    Raises:
        ValueError: ``ann_file`` is not such an index, some of its clips are missing, or an argument
            has no meaning.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **checked_options("SpatialFeatures", kwargs))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the index."""
        try:
            samples = json.loads(read_text(self.ann_file))["samples"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"'{self.ann_file}' is not an index of spatial features; give an index.json "
                "written by tools/cache_spatial.py."
            ) from error
        folder = Path(self.ann_file).parent
        missing = [s["file"] for s in samples if not (folder / s["file"]).is_file()]
        if missing:
            raise ValueError(
                f"'{folder}' lacks {len(missing)} of {len(samples)} clips, first '{missing[0]}'; "
                "run tools/cache_spatial.py again, it resumes where it was interrupted."
            )
        return [
            {"features_path": str(folder / sample["file"]), "label": sample["label"]}
            for sample in samples
        ]


@TRANSFORMS.register_module()
class LoadSpatialFeatures(BaseTransform):
    """Load one clip's spatial class tokens, as mmaction2's ``PackActionInputs`` packs them.

    Required keys: ``features_path``.

    Added keys: ``imgs`` (views, steps, channels) float32.

    Args:
        views: ``'random'`` loads one random view of the clip (training), ``'all'`` loads all.

    Raises:
        ValueError: Unknown ``views``.
    """

    def __init__(self, views: str = "random") -> None:
        if views not in VIEWS:
            raise ValueError(
                f"LoadSpatialFeatures: views={views!r} is not known; give one of "
                f"{', '.join(VIEWS)}."
            )
        self.views = views

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the features.

        Raises:
            ValueError: The file is damaged.
        """
        path = results["features_path"]
        try:
            features = np.load(path).astype(np.float32)
        except (EOFError, OSError, ValueError) as error:
            raise ValueError(
                f"'{path}' cannot be read ({error}); delete it and run tools/cache_spatial.py "
                "again."
            ) from error
        if self.views == "random":
            features = features[np.random.randint(len(features))][None]
        results["imgs"] = features
        return results
