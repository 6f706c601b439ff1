"""Streams of one batch: their tokens go through the linear layers together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel import SharedTopK, TopK, apply_eventful
from mmvitaccel.testing.detectors import detect, frames, retinanet, sample
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


def scenes(size=64):
    """Frames of three streams: much changes in the first, little in the second, nothing in one."""
    torch.manual_seed(1)
    first = torch.randn(STREAMS, 3, size, size)
    for i in range(4):
        first = first.clone()
        if i:
            first[0] += torch.randn(3, size, size)
            first[1, :, :16, :16] += 0.5
        yield first


@pytest.mark.parametrize("host", ["plain", "windows", "rotary"])
def test_a_busy_stream_borrows_and_each_equals_itself_alone_at_the_same_selections(host):
    model, single = made(host).eval(), made(host).eval()
    single.load_state_dict(model.state_dict())
    handle, replay = apply_eventful(model, SharedTopK(K, floor=1)), Replay()
    alone = apply_eventful(single, replay)
    names = [f"video {i}" for i in range(STREAMS)]
    with torch.no_grad():
        for i, batch in enumerate(scenes(70 if host == "rotary" else 64)):
            with handle.stream(names, [i] * STREAMS):
                out = model(batch)
            frames_of_batch = handle.frames
            if i:
                passed = [frame.passed for frame in frames_of_batch]
                totals = {sum(gate) for block in zip(*passed) for gate in zip(*block)}
                assert totals == {K * STREAMS}  # the batch costs the same, gate by gate
                assert min(n for frame in passed for block in frame for n in block) >= 1
                busy, slow, still = (sum(frame[0]) for frame in passed)
                assert busy > slow >= still and busy > 3 * K
            for place, passed in enumerate(handle.passed_tokens()):
                replay.coming = list(passed.flatten(0, 1)) if i else []
                with alone.stream(names[place], i):
                    expected = single(batch[place : place + 1])
                got, wanted = (out[0], expected[0]) if host == "windows" else (out, expected)
                torch.testing.assert_close(got[place], wanted[0], rtol=0, atol=1e-5)


def test_a_stream_that_begins_or_is_refreshed_takes_nothing_of_the_others():
    model = made("plain").eval()
    handle = apply_eventful(model, SharedTopK(K))
    batches = list(scenes())
    with torch.no_grad():
        with handle.stream(["a", "b"]):
            model(batches[0][:2])
        handle.refresh("b")
        with handle.stream(["a", "b", "new"]):
            model(batches[1])
    a, b, new = handle.frames
    assert set(sum(a.passed, ())) == {K}  # alone, with what is its own
    assert b.refreshed and set(sum(b.passed, ())) == {b.num_tokens} and new.first


def test_the_neck_of_a_detector_shares_too_and_boxes_equal_those_alone():
    model, single = retinanet(), retinanet()
    handle = apply_eventful(model, SharedTopK(6, floor=1), parts="all")
    replays = {part: Replay() for part in ("backbone", "neck")}
    alone = apply_eventful(single, replays, parts=("backbone", "neck", "bbox_head"))
    busy = list(frames(4, seed=1))
    still = [next(frames(1, seed=2))] * 4
    for t, pictures in enumerate(zip(busy, still)):
        names = [sample(name, t) for name in ("busy", "still")]
        found = detect(model, pictures, names)
        tokens = {part: handle.parts[part].passed_tokens() for part in replays}
        if t:
            cells = [sum(sum(f.passed, ())) for f in handle.parts["neck"].frames]
            assert sum(cells) == 12 and cells[0] > cells[1] >= 1
        for place in range(2):
            for part, replay in replays.items():
                replay.coming = list(tokens[part][place].flatten(0, 1)) if t else []
            (own,) = detect(single, pictures[place : place + 1], names[place : place + 1])
            torch.testing.assert_close(found[place].bboxes, own.bboxes, rtol=0, atol=1e-3)
            torch.testing.assert_close(found[place].scores, own.scores, rtol=0, atol=1e-5)
    assert alone.attached
