"""Flips for training detectors on clips: all frames of a clip are flipped together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_flip
from torch import Tensor, nn

from mmvitaccel.arguments import numbers, sequence, whole_number
from mmvitaccel.registry import MODELS

# Flipped axes of a picture (C, H, W).
DIRECTIONS = {"horizontal": (2,), "vertical": (1,), "diagonal": (1, 2)}


@MODELS.register_module()
class ClipFlip(nn.Module):
    """Flips all frames of a clip together; ``RandomFlip`` flips each frame independently.

    Use it in ``batch_augments`` of mmdet's ``DetDataPreprocessor``, together with
    :class:`~mmvitaccel.datasets.clip_sampler.ClipSampler`. Padding stays at the right and bottom.

    Args:
        frames: Number of frames of a clip.
        prob: Probability of each direction; the sum is at most 1.
        direction: ``horizontal``, ``vertical`` or ``diagonal``, one for each probability.

    Raises:
        ValueError: An argument is out of range, a direction is unknown, or the probabilities do
            not match the directions.
    """

    def __init__(
        self,
        frames: int = 2,
        prob: Sequence[float] = (0.5,),
        direction: Sequence[str] = ("horizontal",),
    ) -> None:
        super().__init__()
        self.frames = whole_number("ClipFlip", "frames", frames, least=1, of="frames")
        self.prob = numbers("ClipFlip", "prob", prob, least=0, most=1)
        direction = sequence("ClipFlip", "direction", direction, what="directions")
        unknown = [name for name in direction if name not in tuple(DIRECTIONS)]
        if unknown or len(self.prob) != len(direction) or sum(self.prob) > 1:
            raise ValueError(
                f"ClipFlip: prob={list(self.prob)} and direction={list(direction)} do not match: "
                "give one probability for each direction, with a sum of at most 1; the directions "
                f"are {', '.join(DIRECTIONS)}."
            )
        self.direction = direction

    def forward(self, inputs: Tensor, data_samples: SampleList) -> tuple[Tensor, SampleList]:
        """Flip pictures and their samples, clip by clip.

        Args:
            inputs: (B, C, H, W); the frames of a clip are successive.
            data_samples: B samples with boxes.

        Returns:
            The flipped pictures (B, C, H, W), and the samples, changed in place.

        Raises:
            ValueError: The batch does not consist of complete clips, or its samples have masks.
        """
        if len(inputs) % self.frames:
            raise ValueError(
                f"ClipFlip: a batch of {len(inputs)} cannot be split into clips of {self.frames} "
                f"frames; set batch_size to a multiple, and drop_last=True."
            )
        if any("masks" in sample.gt_instances for sample in data_samples):
            raise ValueError(
                "ClipFlip: samples have masks, which are not supported; load only boxes."
            )
        chances = torch.tensor((1 - sum(self.prob), *self.prob))
        drawn = torch.multinomial(chances, len(inputs) // self.frames, replacement=True).tolist()
        flipped = inputs.clone()
        for number, sample in enumerate(data_samples):
            choice = drawn[number // self.frames]
            if choice:
                _flip(flipped[number], sample, self.direction[choice - 1])
        return flipped, data_samples


def _flip(picture: Tensor, sample: object, direction: str) -> None:
    """Flip a picture (C, H, W) except its padding, and the boxes of its sample, in place."""
    size = sample.img_shape[:2]
    shown = picture[:, : size[0], : size[1]]
    shown.copy_(shown.flip(DIRECTIONS[direction]))
    for part in ("gt_instances", "ignored_instances"):
        if part in sample:
            instances = getattr(sample, part)
            instances.bboxes = bbox_flip(instances.bboxes, size, direction)
