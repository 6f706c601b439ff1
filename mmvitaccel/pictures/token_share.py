"""How often each token of a frame passed a gate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def token_share(
    tokens: Tensor, padded: Sequence[int], image: Sequence[int]
) -> tuple[int, np.ndarray]:
    """The share of all gates that each token passed, where it lies in the image.

    Args:
        tokens: Which tokens passed, (blocks, gates, 1, N) bool.
        padded: Height and width of the model's input, which the tokens' grid covers.
        image: Height and width of the image in it; tokens beyond are left out.

    Returns:
        Pixels a side of a token, and (rows, columns) float32.
    """
    height = round((tokens.shape[-1] * padded[0] / padded[1]) ** 0.5)
    share = tokens.float().mean((0, 1, 2)).reshape(height, -1)
    patch = padded[0] // height
    rows, columns = (-(-side // patch) for side in image[:2])
    return patch, share[:rows, :columns].cpu().numpy()
