"""The detectors that the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmvitaccel.errors import UserError
from mmvitaccel.runner.storage import last_checkpoint
from mmvitaccel.video_demo import VideoDemo

_OWN = "demo/faster-rcnn_vitdet-small_vid-320_top200.py"
_TRAINED = Path("work_dirs", "demo_video", "train_320")
UNTRAINED = (
    "The detector's weights are random: its costs are real, but its detections are meaningless. "
    "`make demo-video` trains it."
)


def own_model() -> tuple[dict[str, VideoDemo], str]:
    """The small VID detector, with the weights of ``make demo-video`` if they exist.

    Returns:
        The detector by title, and a message about it, which may be empty.
    """
    checkpoint = last_checkpoint(str(_TRAINED))
    title = "small ViTDet, 320 pixels"
    return {title: VideoDemo(_config(), checkpoint)}, "" if checkpoint else UNTRAINED


def given_models(pairs: Sequence[tuple[str, str]], k: int | None) -> dict[str, VideoDemo]:
    """Detectors by the names of their configs.

    Args:
        pairs: Config and checkpoint of each.
        k: Tokens that pass a gate, for configs without Eventful.

    Raises:
        UserError: A detector cannot be built, or two configs have the same name.
    """
    models: dict[str, VideoDemo] = {}
    for config, checkpoint in pairs:
        name = Path(config).stem
        if name in models:
            raise UserError(f"--model: two configs are named {name}; rename one.")
        models[name] = VideoDemo(config, checkpoint, k=k)
    return models


def checked_k(k: int | None, pairs: Sequence[tuple[str, str]]) -> int | None:
    """Check the option ``--k``, and return it.

    Raises:
        UserError: It is below 1, or given without ``--model``.
    """
    if k is not None and not pairs:
        raise UserError(f"--k {k} is for a --model without Eventful; give one, or leave --k out.")
    if k is not None and k < 1:
        raise UserError(f"--k {k}: give 1 or more.")
    return k


def _config() -> Path:
    """The small detector's config: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    places = (package.parent / "configs", package / ".mim" / "configs")
    return next((place / _OWN for place in places if (place / _OWN).is_file()), places[0] / _OWN)
