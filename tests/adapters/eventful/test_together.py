"""Streams of one batch: their tokens go through the linear layers together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel import TopK, apply_eventful
from mmvitaccel.testing.models import timm_model, vitdet

K, STREAMS = 4, 3


class Replay:
    """Gives the selections of a frame again, gate by gate."""

    def __init__(self):
        self.coming = []

    def select(self, error):
        return self.coming.pop(0).nonzero()[:, 1][None]


def made(host):
    torch.manual_seed(0)
    if host == "windows":
        return vitdet(
            img_size=64, embed_dim=48, depth=3, num_heads=3, window_size=3,
            window_block_indexes=(0, 2),
        )  # fmt: skip
    if host == "rotary":
        return timm_model("eva02_tiny_patch14_224", img_size=70, depth=2)
    return timm_model("vit_tiny_patch16_224", img_size=64, depth=2)


@pytest.mark.parametrize("host", ["plain", "windows", "rotary"])
def test_few_tokens_share_the_layers_and_equal_single_frames(host):
    model, single = made(host).eval(), made(host).eval()
    single.load_state_dict(model.state_dict())
    size = 70 if host == "rotary" else 64
    frames = torch.randn(4, STREAMS, 3, size, size)
    handle, replay = apply_eventful(model, TopK(K)), Replay()
    alone = apply_eventful(single, replay)
    rows = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "head":
            layer.register_forward_hook(lambda _layer, given, _out: rows.append(given[0].shape[1]))
    names = [f"video {i}" for i in range(STREAMS)]
    with torch.no_grad():
        for i, batch in enumerate(frames):
            rows.clear()
            with handle.stream(names, [i] * STREAMS):
                out = model(batch)
            if i == 0:  # each computes its first frame by itself
                calls, rest = divmod(len(rows), STREAMS)
                assert calls > 0 and rest == 0
            else:
                assert rows == [K * STREAMS] * calls
            for place, passed in enumerate(handle.passed_tokens()):
                replay.coming = list(passed.flatten(0, 1)) if i else []
                with alone.stream(names[place], i):
                    expected = single(batch[place : place + 1])
                if host == "windows":
                    torch.testing.assert_close(out[0][place], expected[0][0], rtol=0, atol=1e-5)
                else:
                    torch.testing.assert_close(out[place], expected[0], rtol=0, atol=1e-5)
