"""Heads with GroupNorm, whose statistics are held from the last whole frame.

The reference is the host's own head with each GroupNorm replaced by one that notes the statistics
of a first frame's maps and normalizes later ones by these.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mmvitaccel import Every, Threshold, TopK, apply_eventful
from mmvitaccel.adapters.eventful.head import attach_head
from mmvitaccel.adapters.eventful.neck import attach_neck
from mmvitaccel.adapters.hosts.parts import HEADS_HELD, NECKS
from mmvitaccel.adapters.parts import family_of
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.testing.detectors import detect, frames, retinanet, sample
from mmvitaccel.testing.maps import assert_close, atss, fcos, fpn, retina, video

GN = dict(norm_cfg=dict(type="GN", num_groups=2))
HEADS_OF = {
    "FCOS": lambda: fcos(**GN),
    "FCOS, tricks": lambda: fcos(**GN, norm_on_bbox=True, centerness_on_reg=True),
    "ATSS": lambda: atss(**GN),
    "RetinaNet": lambda: retina(**GN),
}


class Fixed(nn.Module):
    """A GroupNorm that normalizes the maps of a frame as those of the first one."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.seen, self.level, self.first = norm, [], 0, True

    def forward(self, x):
        groups = x.flatten(2).unflatten(1, (self.norm.num_groups, -1)).flatten(2)
        if self.first:
            self.seen.append((groups.mean(2), groups.var(2, unbiased=False)))
        mean, variance = self.seen[self.level]
        self.level += 1
        each = [s[:, :, None] for s in (mean, variance)]
        made = ((groups - each[0]) / (each[1] + self.norm.eps).sqrt()).view_as(x)
        return made * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


def fixed(head):
    """The head with the statistics of the first frame that it is given."""
    head = copy.deepcopy(head)
    norms = []
    for tower in (*head.cls_convs, *head.reg_convs):
        norms.append(Fixed(tower.gn))
        tower.gn = norms[-1]

    def run(levels):
        outs = head(levels)
        for norm in norms:
            norm.level, norm.first = 0, False
        return outs

    return run


def held(plain, **options):
    """An eventful neck and a copy of a head behind it, with both handles."""
    neck, head = fpn(), copy.deepcopy(plain)
    pyramid = attach_neck(neck, family_of(neck, NECKS)[0], lends=True)
    return neck, pyramid, head, attach_head(head, family_of(head, HEADS_HELD)[0], **options)


@pytest.mark.parametrize("make", HEADS_OF.values(), ids=HEADS_OF)
def test_a_first_frame_is_exact_and_later_ones_have_its_statistics(make):
    plain, plain_neck = make(), fpn()
    neck, _, head, handle = held(plain)
    reference, before = fixed(plain), None
    for i, maps in enumerate(video(5, share=0.004)):
        outs, levels = head(neck(maps)), plain_neck(maps)
        assert_close(outs, reference(levels))
        if i == 0:
            assert_close(outs, plain(levels))
            continue
        apart = max(float((a - b).abs().max()) for a, b in zip(outs[0], plain(levels)[0]))
        assert apart > 1e-5, "the statistics are not those of this frame"
        if before is not None:
            assert 0 < (outs[0][0] == before).all(1).float().mean() < 1
        before = outs[0][0].clone()
    assert handle.frames[0].computed < 1


def test_refreshed_frames_are_exact_and_begin_anew():
    plain, plain_neck = HEADS_OF["FCOS"](), fpn()
    neck, pyramid, head, handle = held(plain)
    for i, maps in enumerate(video(7)):
        if i == 2:
            pyramid.refresh(), handle.refresh()
        if i == 5:
            pyramid.reset(), handle.reset()
        levels = plain_neck(maps)
        if i in (0, 2, 5):
            reference = fixed(plain)
        outs = head(neck(maps))
        assert_close(outs, reference(levels))
        if i in (0, 2, 5):
            assert_close(outs, plain(levels))


def test_a_head_with_gates_of_its_own_is_refreshed():
    plain = HEADS_OF["ATSS"]()
    head = copy.deepcopy(plain)
    handle = attach_head(head, family_of(head, HEADS_HELD)[0])
    reference = fixed(plain)
    for i, maps in enumerate(video(4, channels=[8] * 4)):
        if i == 2:
            handle.refresh()
            reference = fixed(plain)
        assert_close(head(maps), reference(maps))


def test_a_frame_that_changes_nearly_everywhere_keeps_the_statistics():
    plain, plain_neck = HEADS_OF["FCOS"](), fpn()
    neck, _, head, _ = held(plain)
    reference = fixed(plain)
    for maps in video(3, share=0.9):
        assert_close(head(neck(maps)), reference(plain_neck(maps)))


def test_streams_apart_in_a_batch_and_in_lockstep():
    plain, plain_neck = HEADS_OF["ATSS"](), fpn()
    neck, pyramid, head, _ = held(plain)
    videos = {name: list(video(6, seed=seed)) for seed, name in enumerate("abc")}
    references = {name: fixed(plain) for name in videos}
    for i, names in enumerate(["ab", "ab", "c", "ba", "cb", "abc"]):
        maps = [torch.cat(parts) for parts in zip(*(videos[name][i] for name in names))]
        with pyramid.stream(list(names) if len(names) > 1 else names):
            outs = head(neck(maps))
        for place, name in enumerate(names):
            own = [[x[place : place + 1] for x in kind] for kind in outs]
            assert_close(own, references[name](plain_neck(videos[name][i])))
    both = fixed(plain)
    for i in range(3):
        maps = [torch.cat(parts) for parts in zip(videos["a"][i], videos["b"][i])]
        with pyramid.stream("both"):
            assert_close(head(neck(maps)), both(plain_neck(maps)))


def test_in_half_precision_and_with_half_memory():
    for half, options in ((True, {}), (False, dict(buffer_dtype=torch.bfloat16))):
        plain, plain_neck = HEADS_OF["FCOS"](), fpn()
        neck, _, head, _ = held(plain, **options)
        reference = fixed(plain)
        for maps in video(3):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = head(neck(maps))
            for ours, theirs in zip(found[0], reference(plain_neck(maps))[0]):
                torch.testing.assert_close(ours.float(), theirs, rtol=0.1, atol=0.1)


def test_a_hook_on_a_norm_is_refused():
    neck, _, head, _ = held(HEADS_OF["FCOS"]())
    head.cls_convs[0].gn.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match=r"'cls_convs\.0\.gn': it has a forward hook"):
        head(neck(next(video(1))))


def detector():
    return retinanet(norm_cfg=dict(type="GN", num_groups=4))


@pytest.mark.parametrize("parts", ["all", ("neck", "bbox_head"), ("bbox_head",)], ids=str)
def test_a_detector_that_is_refreshed_is_the_plain_one_at_those_frames(parts):
    plain, model = detector(), detector()
    _, handle = attach_eventful(
        model, dict(type="Threshold", threshold=0.0), "tokenwise", parts=parts,
        group_norm="held", refresh=dict(type="Every", frames=3),
    )  # fmt: skip
    assert "bbox_head" in handle.parts
    apart = []
    for i, picture in enumerate(frames(7)):
        found = detect(model, [picture], [sample("v", i)])[0].scores
        apart.append(
            float((found - detect(plain, [picture], [sample("v", i)])[0].scores).abs().max())
        )
    assert max(apart[::3]) < 1e-5 < min(apart[1:3] + apart[4:6])


def test_copies_and_threads():
    """A copy starts without streams; threads that run videos side by side do not meet."""
    videos = {name: list(frames(4, seed=seed)) for seed, name in enumerate("abc")}

    def eventful():
        model = detector()
        apply_eventful(model, TopK(6), parts="all", group_norm="held")
        return model

    def run(model, name):
        return [detect(model, [p], [sample(name, i)])[0] for i, p in enumerate(videos[name])]

    alone = {name: run(eventful(), name) for name in videos}
    model = eventful()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda name: run(model, name), videos))
    for name, found in zip(videos, together):
        for ours, theirs in zip((*found, *run(copy.deepcopy(model), name)), alone[name] * 2):
            torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)


def test_what_has_no_meaning_is_named():
    with pytest.raises(ValueError, match=r"group_norm='hold' must be None, .* or 'held'"):
        apply_eventful(detector(), Threshold(0.0), parts="all", group_norm="hold")
    with pytest.raises(ValueError, match="group_norm='held' applies to a detector's map heads"):
        apply_eventful(detector(), Threshold(0.0), group_norm="held")
    batch = retinanet(norm_cfg=dict(type="BN", track_running_stats=False))
    with pytest.raises(ValueError, match="BatchNorm without running statistics"):
        apply_eventful(batch, TopK(6), parts="bbox_head", group_norm="held")
    apply_eventful(detector(), TopK(6), parts="all", group_norm="held", refresh=Every(3))
