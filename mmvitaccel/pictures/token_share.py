"""How often each token of a frame passed a gate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import class_name
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.errors import UserError


def token_share(
    handle: EventfulHandle, tokens: Tensor, padded: Sequence[int], image: Sequence[int]
) -> tuple[int, np.ndarray]:
    """The share of all gates that each token passed, where it lies in the image.

    Args:
        handle: Of the transformer that they are of; its class and register tokens, which come
            first and lie nowhere in the image, are left out.
        tokens: Which tokens passed, (blocks, gates, 1, N) bool.
        padded: Height and width of the model's input, which the tokens' grid covers.
        image: Height and width of the image in it; tokens beyond are left out.

    Returns:
        Pixels a side of a token, and (rows, columns) float32.

    Raises:
        UserError: The tokens are not those of square patches that cover the input.
    """
    adapter = link(handle.model).info.adapter
    patches = tokens[..., len(adapter.prefix(handle.model)) :]
    count = patches.shape[-1]
    height = max(round((count * padded[0] / padded[1]) ** 0.5), 1)
    if count % height:
        raise UserError(
            f"the {count} tokens of {class_name(handle.model)} cannot be drawn on its input of "
            f"{padded[0]} x {padded[1]} pixels, since they are not those of square patches; give "
            "a model that cuts its images into such."
        )
    share = patches.float().mean((0, 1, 2)).reshape(height, -1)
    patch = padded[0] // height
    rows, columns = (-(-side // patch) for side in image[:2])
    return patch, share[:rows, :columns].cpu().numpy()
