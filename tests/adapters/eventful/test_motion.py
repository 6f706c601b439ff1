"""Moving cameras on models: equal to the dense model on pictures that stay on the scene."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from mmvitaccel import (
    Always,
    LastObjects,
    OnChange,
    RandomTokens,
    ReceivedAttention,
    TopK,
    Translation,
    Weighted,
    apply_eventful,
    apply_tome,
)
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.testing import stills
from mmvitaccel.testing.aligned import NaiveScene, aligned_vit, aligned_vitdet
from mmvitaccel.testing.models import timm_model, vitdet

PATCH, SIDE = 16, 160
GRID = (SIDE // PATCH, SIDE // PATCH)
ROOM = 200
PANS = [(3, 0), (0, -5), (4, -7), (16, 16)]


def timm_small(**kwargs):
    torch.manual_seed(0)
    size = dict(img_size=SIDE, depth=3, num_classes=0, global_pool="")
    return timm_model("vit_tiny_patch16_224", **{**size, **kwargs}).eval()


def vitdet_small(**kwargs):
    """Windows that no side is a multiple of, and relative positions that count."""
    torch.manual_seed(0)
    size = dict(img_size=SIDE, embed_dim=32, depth=4, num_heads=2, pretrain_img_size=64)
    model = vitdet(**{**size, "window_size": 4, "window_block_indexes": (0, 2), **kwargs}).eval()
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.3)
        elif name.endswith("weight") and parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.15)
    return model


def still(seed=0):
    """Structure of every size, with room around a frame, (1, 3, height, width)."""
    return stills.still(SIDE + 2 * ROOM, seed)


def shown(whole, y, x):
    return whole[..., ROOM + y : ROOM + y + SIDE, ROOM + x : ROOM + x + SIDE].clone()


def pan(step, frames, seed=0):
    whole = still(seed)
    return [
        (shown(whole, t * step[0], t * step[1]), (t * step[0], t * step[1])) for t in range(frames)
    ]


def run(model, x):
    with torch.no_grad():
        return model(x)


def off(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("step", PANS, ids=str)
@pytest.mark.parametrize(
    "kwargs", [{}, dict(reg_tokens=4, no_embed_class=True, init_values=0.1)], ids=str
)
def test_all_tokens_are_those_of_the_dense_model_on_the_aligned_picture(step, kwargs):
    model, dense, naive = timm_small(**kwargs), timm_small(**kwargs), NaiveScene(PATCH, ROOM)
    handle = apply_eventful(model, Always(), motion=Translation(reach=0.9))
    for frame, offset in pan(step, 9):
        found = run(model, frame)
        assert handle.frames[0].camera.offset == offset and handle.frames[0].camera.fits
        view = naive.see(frame, offset)
        aligned = aligned_vit(dense, GRID, naive.first, offset, PATCH)
        assert off(found, run(aligned, view)) < 1e-5


VITDETS = [{}, dict(use_rel_pos=False), dict(use_abs_pos=False, window_size=5)]


@pytest.mark.parametrize("step", PANS, ids=str)
@pytest.mark.parametrize("kwargs", VITDETS, ids=str)
def test_all_tokens_of_vitdet_are_those_of_the_dense_model_on_the_aligned_picture(step, kwargs):
    model, dense = vitdet_small(**kwargs), vitdet_small(**kwargs)
    naive = NaiveScene(PATCH, ROOM)
    handle = apply_eventful(model, Always(), motion=Translation(reach=0.9))
    for frame, offset in pan(step, 9):
        (found,) = run(model, frame)
        assert handle.frames[0].camera.offset == offset
        view = naive.see(frame, offset)
        (expected,) = run(aligned_vitdet(dense, GRID, naive.first, offset), view)
        assert off(found, expected) < 1e-5


@pytest.mark.parametrize("step", [(3, 0), (-7, 4), (16, -16)], ids=str)
def test_running_sums_stay_those_of_all_tokens(step):
    """Keys that leave take their relative positions along."""
    models = {mode: vitdet_small() for mode in ("exact", "tokenwise")}
    for mode, model in models.items():
        apply_eventful(model, TopK(25), mode, motion=Translation(reach=0.9))
    for frame, _ in pan(step, 12):
        exact, every = (run(model, frame)[0] for model in models.values())
        assert off(exact, every) < 1e-4


def test_vitdet_begins_anew_beyond_its_reach():
    model, dense = vitdet_small(), vitdet_small()
    handle = apply_eventful(model, TopK(25), motion=Translation(reach=0.2))
    refreshed = []
    for frame, _ in pan((16, 3), 9):
        (found,) = run(model, frame)
        refreshed.append(handle.frames[0].refreshed)
        if refreshed[-1]:
            assert off(found, run(dense, frame)[0]) < 1e-5
    assert sum(refreshed) == 2


@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
def test_a_pan_costs_little_more_than_a_fixed_camera(attention):
    """A fifth of the tokens, against the same without motion and with tokens at random."""
    errors = {}
    for name, policy, motion in (
        ("with", TopK(20), Translation(reach=0.9)), ("without", TopK(20), None),
        ("random", RandomTokens(20), Translation(reach=0.9)),
    ):  # fmt: skip
        model, dense, naive = timm_small(), timm_small(), NaiveScene(PATCH, ROOM)
        apply_eventful(model, policy, attention, motion=motion)
        for frame, offset in pan((2, 3), 10):
            found = run(model, frame)
            view = naive.see(frame, offset)
            aligned = aligned_vit(dense, GRID, naive.first, offset, PATCH)
            errors[name] = off(found, run(aligned if motion else dense, view if motion else frame))
    assert errors["with"] < 0.25 * errors["without"]
    assert errors["with"] < errors["random"]


def test_within_a_patch_a_still_is_the_same_bit_by_bit():
    """The whole memory stays, and what comes back differs by where the frame lies alone."""
    model = timm_small()
    handle = apply_eventful(model, TopK(20), "tokenwise", motion=Translation())
    outs = []
    model.blocks[-1].register_forward_hook(lambda block, given, out: outs.append(out))
    before = None
    for frame, _ in pan((2, -3), 6):
        run(model, frame)
        gates = [block.qkv_gate.reference for block in handle.remembered("unnamed").values()]
        kept = [gate.clone() for gate in gates]
        assert before is None or all(map(torch.equal, kept, before))
        assert handle.frames[0].left_out == 0
        before = kept
    assert handle.frames[0].camera.offset == (10, -15)
    with handle.stream("unnamed"):
        back = run(model, shown(still(), 0, 0))
    assert torch.equal(outs[-1], outs[0]) and back is not None


def test_what_stays_in_view_is_reused_bit_by_bit_when_the_view_moves():
    model = timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation(reach=0.9))
    frames = pan((8, 8), 4)
    run(model, frames[0][0])
    first = handle.remembered("unnamed")[0].qkv_gate.reference.clone()
    for frame, _ in frames[1:]:
        run(model, frame)
    assert handle.frames[0].camera.offset == (24, 24)  # the second row and column on
    now = handle.remembered("unnamed")[0].qkv_gate.reference
    same = (now == first).all(2)[0, 1:].view(GRID)
    assert same[1:, 1:].all() and not same[0].any() and not same[:, 0].any()


@pytest.mark.parametrize("policy", [TopK(5), RandomTokens(5), TopK(30)], ids=repr)
def test_what_came_into_view_passes_every_gate(policy):
    model = timm_small()
    handle = apply_eventful(model, policy, motion=Translation(reach=0.9))
    frames = pan((16, -16), 3)
    run(model, frames[0][0])
    for frame, _ in frames[1:]:
        run(model, frame)
        passed = handle.passed_tokens()[0][:, :, 0, 1:].unflatten(2, GRID)
        assert passed[:, :, -1].all() and passed[..., 0].all()  # at the bottom and the left
        assert {n for block in handle.frames[0].passed for n in block} == {max(policy.k, 19)}


class Largest:
    """A policy of a user's own, without a budget that can change."""

    def __init__(self, k):
        self.k = k

    def select(self, error):
        return error.topk(self.k, dim=1, sorted=False).indices

    def most(self, num_tokens):
        return self.k


class LargestInBudget(Largest):
    """The same with one."""

    def with_budget(self, k, num_tokens):
        return LargestInBudget(k)


def test_a_policy_of_ones_own_saves_as_top_k_does():
    outs, counts = {}, {}
    for policy in (TopK(20), LargestInBudget(20), Largest(20)):
        model, kind = timm_small(), type(policy)
        handle = apply_eventful(model, policy, motion=Translation(reach=0.9))
        outs[kind], counts[kind] = [], []
        for frame, _ in pan((2, 3), 10):
            outs[kind].append(run(model, frame))
            counts[kind].append(handle.frames[0].passed)
    assert counts[LargestInBudget] == counts[TopK] != counts[Largest]
    assert all(map(torch.equal, outs[LargestInBudget], outs[TopK]))
    assert {min(map(min, passed)) for passed in counts[Largest][1:]} == {20}
    assert min(min(map(min, passed)) for passed in counts[TopK]) == 16


def test_maps_on_the_view_are_those_of_the_aligned_model_itself():
    model, dense, naive = vitdet_small(), vitdet_small(), NaiveScene(PATCH, ROOM)
    handle = apply_eventful(model, Always(), motion=Translation(reach=0.9, maps="view"))
    for frame, offset in pan((5, -7), 7):
        (found,) = run(model, frame)
        view = naive.see(frame, offset)
        assert off(found, run(aligned_vitdet(dense, GRID, naive.first), view)[0]) < 1e-5
        (info,) = handle.frames
        assert info.camera.beyond == tuple(o - PATCH * f for o, f in zip(offset, naive.first))
    assert info.camera.beyond == (14, -10)


def test_a_fixed_camera_is_the_same_bit_by_bit():
    torch.manual_seed(1)
    model, plain = timm_small(), timm_small()
    apply_eventful(plain, TopK(20))
    handle = apply_eventful(model, TopK(20), motion=Translation())
    scene = shown(still(), 0, 0)
    for _ in range(5):
        frame = scene + 0.1 * torch.randn_like(scene)
        frame[..., 40:80, 30:60] = torch.randn(1, 3, 40, 30)  # and something moves
        assert torch.equal(run(model, frame), run(plain, frame))
        assert handle.frames[0].camera == ((0, 0), (0, 0), True, (0, 0))
    assert plain is not model and handle.memory_bytes > 0


def test_beyond_its_reach_a_frame_is_dense():
    model, dense = timm_small(), timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation(reach=0.2))
    whole = []
    for number, (frame, _) in enumerate(pan((16, 0), 8)):
        found = run(model, frame)
        (info,) = handle.frames
        if info.refreshed:
            whole.append(number)
            assert info.camera.offset == (0, 0) and info.camera.moved == (16, 0)
            assert off(found, run(dense, frame)) < 1e-5
    assert whole == [3, 6]


def test_a_requested_refresh_is_dense_on_the_frame():
    model, dense = timm_small(), timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation())
    for number, (frame, _) in enumerate(pan((0, 9), 5)):
        if number == 4:
            handle.refresh()
        found = run(model, frame)
    assert handle.frames[0].refreshed and handle.frames[0].camera.offset == (0, 0)
    assert off(found, run(dense, frame)) < 1e-5


def test_another_scene_is_noticed_and_said_once():
    model = timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation(), refresh=OnChange())
    with handle.stream("door"):
        run(model, shown(still(), 0, 0))
        with pytest.warns(
            UserWarning, match=r"a picture of stream 'door' is not that of the frame"
        ):
            run(model, shown(still(1), 0, 0))
        assert not handle.frames[0].camera.fits
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(model, shown(still(1), 0, 3))
            assert handle.frames[0].camera.fits and handle.frames[0].camera.offset == (0, 3)
            run(model, shown(still(2), 0, 0))
            assert not handle.frames[0].camera.fits and handle.frames[0].camera.offset == (0, 3)


def test_a_zoom_is_as_without_motion_and_said_once():
    model, plain = timm_small(), timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation())
    apply_eventful(plain, TopK(20))
    whole, frames = still(), []
    for number in range(4):
        side = round(SIDE / 1.02**number)
        start = (whole.shape[-1] - side) // 2
        part = whole[..., start : start + side, start : start + side]
        frames.append(nn.functional.interpolate(part, (SIDE, SIDE), mode="bicubic"))
    assert torch.equal(run(model, frames[0]), run(plain, frames[0]))
    with pytest.warns(UserWarning, match=r"moved by some pixels \(a zoom, a turn, .* or") as said:
        for frame in frames[1:]:
            assert torch.equal(run(model, frame), run(plain, frame))
            assert not handle.frames[0].camera.fits
    assert len(said) == 1


def test_streams_of_a_batch_have_cameras_of_their_own():
    model, alone = timm_small(), timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation())
    single = apply_eventful(alone, TopK(20), motion=Translation())
    for (a, at), (b, to) in zip(pan((5, 0), 6), pan((0, -8), 6, seed=1)):
        with handle.stream(["a", "b"]):
            both = run(model, torch.cat((a, b)))
        assert [frame.camera.offset for frame in handle.frames] == [at, to]
        for name, frame, found in (("a", a, both[:1]), ("b", b, both[1:])):
            with single.stream(name):
                assert off(found, run(alone, frame)) < 1e-5
    copied = copy.deepcopy(model)
    assert off(run(copied, a), run(timm_small(), a)) < 1e-5


def test_objects_lie_on_the_frame():
    """Tokens that matter are found where they are on the scene."""
    model = timm_small()
    policy = Weighted(TopK(4), [LastObjects(grow=0)], floor=0.0)
    handle = apply_eventful(model, policy, motion=Translation(reach=0.9))
    frames = pan((0, 16), 4)
    for frame, _ in frames[:3]:
        run(model, frame)
    handle.saw_objects(torch.tensor([[0.2, 0.3, 0.4, 0.5]]))  # four patches
    frame = shown(still(), 0, 32)
    run(model, frame + torch.randn_like(frame))
    passed = handle.passed_tokens()[0][0, 0, 0, 1:].view(GRID)
    assert passed[3:5, 2:4].all() and int(passed.sum()) == 4


def test_attention_that_tokens_received_lies_on_the_frame():
    """It comes back to the slots of the tokens that received it."""
    model = timm_small()
    policy = Weighted(TopK(6), [ReceivedAttention()])
    handle = apply_eventful(model, policy, motion=Translation(reach=0.9))
    for frame, _ in pan((16, -16), 3):
        run(model, frame)
    state = handle._state.store.state("unnamed")
    received = state.blocks[2].attention.received()[0, 1:]
    order = state.scene.order(received.device)
    assert torch.equal(state.matters.attended[-1], received[order])
    rolled = state.matters.attended[-1].view(GRID).roll(state.scene.tokens_off, (0, 1))
    assert torch.equal(rolled.flatten(), received)  # by whole patches nothing is lost


def test_configs_and_taking_it_off():
    model, dense = timm_small(), timm_small()
    motion = dict(type="Translation", reach=0.5)
    _, handle = attach_eventful(model, dict(type="TopK", k=20), motion=motion)
    for frame, _ in pan((0, 4), 3):
        run(model, frame)
    assert handle.frames[0].camera.offset == (0, 8)
    handle.remove()
    assert torch.equal(run(model, frame), run(dense, frame))
    with pytest.raises(ValueError, match=r"motion={'type': 'Zoom'} has no registered type; "):
        attach_eventful(model, dict(type="TopK", k=20), motion=dict(type="Zoom"))


def test_half_precision_and_a_change_of_autocast():
    model, dense = timm_small(), timm_small()
    handle = apply_eventful(model, TopK(20), motion=Translation())
    frames = [frame for frame, _ in pan((0, 6), 5)]
    with torch.autocast("cpu", torch.bfloat16):
        for frame in frames[:3]:
            run(model, frame)
        assert handle.frames[0].camera.offset == (0, 12)
    assert off(run(model, frames[3]), run(dense, frames[3])) < 1e-5  # starts clean
    assert handle.frames[0].first
    halves = timm_small().bfloat16()
    handle = apply_eventful(halves, Always(), motion=Translation())
    naive = NaiveScene(PATCH, ROOM)
    for frame, offset in pan((0, 6), 5):
        found, view = run(halves, frame.bfloat16()), naive.see(frame, offset)
    aligned = aligned_vit(dense, GRID, naive.first, offset, PATCH)
    assert handle.frames[0].camera.offset == (0, 24)
    assert off(found.float(), run(aligned, view)) < 0.05


def test_training_is_the_hosts_own():
    model, dense = timm_small(), timm_small()
    apply_eventful(model, TopK(20), motion=Translation())
    frame = shown(still(), 0, 0)
    assert torch.equal(run(model.train(), frame), run(dense.train(), frame))
    assert len(run(model, torch.cat((frame, frame)))) == 2


class Pooled(nn.Module):
    """Calls the blocks by itself."""

    def __init__(self):
        super().__init__()
        self.vit = timm_small()

    def forward(self, x):
        x = self.vit.patch_embed(x)
        for block in self.vit.blocks:
            x = block(x)
        return x


def test_refusals():
    frame, motion = shown(still(), 0, 0), Translation()
    with pytest.raises(TypeError, match=r"motion='fast' has no methods start and follow; give Tr"):
        apply_eventful(timm_small(), TopK(5), motion="fast")
    eva = timm_model("eva02_tiny_patch14_224", depth=2)
    with pytest.raises(ValueError, match=r"motion=Translation\(.*timm Eva is not among the models"):
        apply_eventful(eva, TopK(5), motion=motion)
    with pytest.raises(
        ValueError, match=r"normalises tokens after their positions are added; leave"
    ):
        apply_eventful(timm_small(pre_norm=True), TopK(5), motion=motion)
    with pytest.raises(
        ValueError, match=r"dynamic_img_size\); build it for one size; leave motion"
    ):
        apply_eventful(timm_small(dynamic_img_size=True), TopK(5), motion=motion)
    with pytest.raises(
        ValueError, match=r"kv_pool_size=2 averages keys over squares that a moving"
    ):
        apply_eventful(timm_small(), TopK(5), motion=motion, kv_pool_size=2)
    pairs = vitdet_small(rel_pos_resize="pairs", img_size=64)
    apply_eventful(pairs, TopK(5), motion=motion)
    with pytest.raises(ValueError, match=r"in pairs from 4 x 4 to 10 x 10 tokens and then depend"):
        run(pairs, frame)
    run_of = vitdet_small(rel_pos_resize="pairs")
    apply_eventful(run_of, TopK(5), motion=motion)
    run(run_of, frame)  # of the size that its tables are made for
    with pytest.raises(ValueError, match=r"the patch size, but 160 x 150 pixels are not a mult"):
        run(run_of, frame[..., :150])
    merged = timm_small()
    apply_tome(merged, 2)
    with pytest.raises(RuntimeError, match=r"tokens on the scene, where merged ones have no pl"):
        apply_eventful(merged, TopK(5), motion=motion)
    model = timm_small()
    handle = apply_eventful(model, TopK(5), motion=motion)
    with pytest.raises(
        RuntimeError, match=r"ToMe cannot be attached to .* merged ones have no place"
    ):
        apply_tome(model, 2)
    with pytest.raises(ValueError, match=r"this method of timm.*reads tokens of inner bl"):
        model.forward_intermediates(frame)
    with (
        handle.stream("both"),
        pytest.raises(ValueError, match=r"a batch of 2 pictures goes in lockstep"),
    ):
        run(model, torch.cat((frame, frame)))
    outer = Pooled()
    apply_eventful(outer, TopK(5), motion=motion)
    with pytest.raises(
        RuntimeError, match=r"tokens reached the blocks of timm.*call the model, or le"
    ):
        run(outer.eval(), frame)
