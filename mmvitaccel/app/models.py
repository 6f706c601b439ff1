"""Which detectors the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmvitaccel.errors import UserError
from mmvitaccel.runner.storage import last_checkpoint
from mmvitaccel.video_demo import VideoDemo

_OWN = "demo/faster-rcnn_vitdet-small_vid-320_top200.py"
_TRAINED = Path("work_dirs", "demo_video", "train_320")
UNTRAINED = (
    "The detector's weights are random: its costs are real, and what it finds means nothing. "
    "`make demo-video` trains them."
)


def own_model() -> tuple[dict[str, VideoDemo], str]:
    """The small VID detector, with the weights of ``make demo-video`` where there are some.

    Returns:
        It by its title, and what is to be said of it.
    """
    checkpoint = last_checkpoint(str(_TRAINED))
    title = "small ViTDet, 320 pixels"
    return {title: VideoDemo(_config(), checkpoint)}, "" if checkpoint else UNTRAINED


def given_models(pairs: Sequence[tuple[str, str]], k: int | None) -> dict[str, VideoDemo]:
    """Detectors by the names of their configs.

    Args:
        pairs: Config and checkpoint of each.
        k: Tokens that pass, for configs without Eventful.

    Raises:
        UserError: One does not serve, or two have one name.
    """
    models: dict[str, VideoDemo] = {}
    for config, checkpoint in pairs:
        name = Path(config).stem
        if name in models:
            raise UserError(f"--model: two configs are called {name}; give each another name.")
        models[name] = VideoDemo(config, checkpoint, k=k)
    return models


def checked_k(k: int | None, pairs: Sequence[tuple[str, str]]) -> int | None:
    """The option ``--k``.

    Raises:
        UserError: It is below 1, or there is no model that it is for.
    """
    if k is not None and not pairs:
        raise UserError(f"--k {k} is for a --model without Eventful; give one, or leave --k out.")
    if k is not None and k < 1:
        raise UserError(f"--k {k}: give 1 or more.")
    return k


def _config() -> Path:
    """The small detector's config: in a checkout beside the package, in a wheel inside."""
    package = Path(__file__).parents[1]
    places = (package.parent / "configs", package / ".mim" / "configs")
    return next((place / _OWN for place in places if (place / _OWN).is_file()), places[0] / _OWN)
