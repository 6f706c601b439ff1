"""ToMe and Eventful on one model, against gates over tokens that merge as they once did."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F

from mmvitaccel import (
    Always,
    Budget,
    Every,
    LastObjects,
    Threshold,
    TopK,
    Weighted,
    apply_eventful,
    apply_tome,
)
from mmvitaccel.adapters.attach import is_attached, link, links
from mmvitaccel.core.macs.counter import count_macs
from tests.adapters.conftest import HOSTS, host_param, scramble, timm_vit, vitdet, vivit

R = 3


def make_model(**options):
    return scramble(timm_vit(**options)).eval()


def make_video(frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    video = [torch.randn(1, 3, 32, 32, generator=generator)]
    for _ in range(frames - 1):
        moving = torch.rand(1, 1, 32, 32, generator=generator) < 0.25
        noise = torch.randn(1, 3, 32, 32, generator=generator)
        video.append(video[-1] + 0.3 * moving * noise)
    return video


def both(policy, attention="exact", tome_first=True, r=R, **options):
    """A model with the two methods and their handles."""
    model = make_model()
    puts = dict(
        tome=lambda: apply_tome(model, r),
        eventful=lambda: apply_eventful(model, policy, attention, **options),
    )
    made = {name: puts[name]() for name in (list(puts) if tome_first else list(puts)[::-1])}
    return model, made["tome"], made["eventful"]


def run(model, video):
    with torch.no_grad():
        return [model.forward_features(frame) for frame in video]


def fresh(video, policy, attention="exact", **options):
    return run(both(policy, attention, **options)[0], video)


class Naive:
    """timm's ViT over merged tokens, frame by frame, with gates as plain loops over tokens."""

    def __init__(self, model, r, k):
        self.model, self.r, self.k, self.memory = model, r, k, None

    def frame(self, x):
        model, first = self.model, self.memory is None
        x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
        memory = [{} for _ in model.blocks] if first else self.memory
        size, owner = torch.ones(x.shape[1]), torch.arange(x.shape[1])
        for block, kept in zip(model.blocks, memory):
            x, size, owner = self.block(block, kept, x[0], size, owner, first)
        self.memory = memory
        return model.norm(x[:, owner])

    def gated(self, kept, name, x, work, first):
        """``work`` of the k tokens of ``x`` that changed most; of the others what it once was."""
        if first:
            kept[name] = [x.clone(), work(x).clone()]
        else:
            seen, done = kept[name]
            for i in (seen - x).norm(dim=1).argsort(descending=True)[: self.k].tolist():
                seen[i] = x[i]
                done[i] = work(x[i : i + 1])[0]
        return kept[name][1]

    def block(self, block, kept, x, size, owner, first):
        attn = block.attn
        qkv = self.gated(kept, "qkv", block.norm1(x), attn.qkv, first)
        q, k, v = qkv.unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) * attn.scale + size.log()).softmax(-1)
        out = (weights @ v).transpose(0, 1).flatten(1)
        x = x + self.gated(kept, "proj", out, attn.proj, first)
        if first:
            kept["merge"] = self.matching(k.mean(0))
        groups, place = kept["merge"]
        x = torch.stack([(x[g] * size[g, None]).sum(0) / size[g].sum() for g in groups])
        size = torch.stack([size[g].sum() for g in groups])
        x = x + self.gated(kept, "mlp", block.norm2(x), block.mlp, first)
        return x[None], size, place[owner]

    def matching(self, keys):
        """Groups of tokens that become one, and the group of each token; the class stays first."""
        keys = F.normalize(keys, dim=1)
        odd, even = list(range(1, len(keys), 2)), list(range(2, len(keys), 2))
        similar = keys[even] @ keys[odd].T
        best, edge = similar.max(1)
        merged = best.argsort(descending=True, stable=True)[: self.r].tolist()
        groups = [[0], *([even[i]] for i in range(len(even)) if i not in merged)]
        groups += [[o] for o in odd]
        for i in merged:
            next(g for g in groups if g[0] == odd[edge[i]]).append(even[i])
        place = torch.empty(len(keys), dtype=torch.int64)
        for number, group in enumerate(groups):
            place[group] = number
        return groups, place


@pytest.mark.parametrize("tome_first", [True, False])
@pytest.mark.parametrize("attention", ["exact", "tokenwise"])
@pytest.mark.parametrize("k", [4, 17])
def test_against_gates_and_merges_token_by_token(attention, k, tome_first):
    video = make_video(4)
    naive = Naive(make_model(), R, k)
    with torch.no_grad():
        expected = [naive.frame(frame) for frame in video]
    found = fresh(video, TopK(k), attention, tome_first=tome_first)
    for a, b in zip(found, expected):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def test_delta_with_everything_equals_the_frozen_dense_model():
    video = make_video(4)
    naive = Naive(make_model(), R, 17)
    with torch.no_grad():
        expected = [naive.frame(frame) for frame in video]
    for a, b in zip(fresh(video, Always(), "delta"), expected):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def test_delta_stays_near_the_frozen_dense_model():
    video = make_video(4)
    naive = Naive(make_model(), R, 17)
    with torch.no_grad():
        expected = [naive.frame(frame) for frame in video]
    found = fresh(video, TopK(10), "delta")
    stale = [found[0]] * 4
    for a, b, c in zip(found[1:], expected[1:], stale):
        assert (a - b).norm() < (c - b).norm()


MERGED = [name for name in HOSTS if name.startswith("timm") and "features" not in name]
MERGED += ["mmpretrain class token", "mmpretrain EVA-02", "transformers DINOv3", "mmcv layers"]


@pytest.mark.parametrize("name", [host_param(name) for name in MERGED if name in HOSTS])
def test_first_frames_equal_tome_alone(name):
    build, shape = HOSTS[name]
    model, x = scramble(build()), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    model.eval()
    outs = []
    handle = apply_tome(model, R)
    outs.append(tensors(model, x))
    eventful = apply_eventful(model, TopK(4))
    with eventful.stream(["a", "b"]):
        outs.append(tensors(model, x))
        later = tensors(model, x)  # nothing changed
    for alone, first, again in zip(*outs, later):
        assert torch.allclose(first, alone, atol=1e-5, rtol=1e-5)
        assert torch.allclose(again, alone, atol=1e-5, rtol=1e-5)
    assert handle.tokens[-1] < handle.info.sizes[0].sum(1)[0]
    handle.remove()
    assert eventful.attached and not is_attached(model, "ToMe")


def tensors(model, x):
    with torch.no_grad():
        out = model(x)
    if isinstance(out, torch.Tensor):
        return [out]
    values = out.values() if isinstance(out, dict) else out
    return [t for t in values if isinstance(t, torch.Tensor)]


def test_streams_of_a_batch_keep_their_own_maps():
    videos = [make_video(4, seed) for seed in (1, 2, 3)]
    model, tome, eventful = both(TopK(5))
    found = []
    for frames in zip(*videos):
        with torch.no_grad(), eventful.stream(["a", "b", "c"]):
            found.append(model.forward_features(torch.cat(frames)))
        sizes = tome.info.sizes[-1]
        assert sizes.shape[0] == 3
    assert not torch.equal(sizes[0], sizes[1])
    for i, video in enumerate(videos):
        for together, alone in zip(found, fresh(video, TopK(5))):
            assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


def test_a_stream_that_joins_later_decides_for_itself():
    first, second = make_video(4, 1), make_video(3, 2)
    model, _, eventful = both(TopK(5))
    with torch.no_grad():
        with eventful.stream(["a"]):
            model.forward_features(first[0])
        for number in range(3):
            with eventful.stream(["a", "b"]):
                out = model.forward_features(torch.cat([first[number + 1], second[number]]))
    assert torch.allclose(out[:1], fresh(first, TopK(5))[-1], atol=1e-5)
    assert torch.allclose(out[1:], fresh(second, TopK(5))[-1], atol=1e-5)


@pytest.mark.parametrize("how", ["reset", "refresh", "every", "cut"])
def test_a_whole_frame_merges_anew(how):
    video = make_video(4)
    video[2] = make_video(1, seed=5)[0]
    options = dict(refresh=Every(2)) if how == "every" else {}
    model, _, eventful = both(TopK(5), **options)
    run(model, video[:2])
    if how == "reset":
        eventful.reset()
    if how == "refresh":
        eventful.refresh()
    with eventful.stream("unnamed", cut=how == "cut"):
        whole = run(model, video[2:3])[0]
    assert eventful.frames[0].computed == 1
    after = run(model, video[3:])[0]
    expected = fresh(video[2:], TopK(5))
    assert torch.allclose(whole, expected[0], atol=1e-5)
    if how != "every":
        assert torch.allclose(after, expected[1], atol=1e-5)


def test_frames_tell_what_passed_by_the_first_tokens():
    video = make_video(3)
    model, tome, eventful = both(TopK(4))
    run(model, video)
    frame = eventful.frames[0]
    assert frame.num_tokens == 17
    assert frame.passed == [(4, 4, 4)] * 3
    gates = [17, 17, 14, 14, 14, 11, 11, 11, 8]
    assert frame.computed == pytest.approx(4 * 9 / sum(gates))
    assert tome.tokens == [14, 11, 8]
    tokens = eventful.passed_tokens()[0]
    assert tokens.shape == (3, 3, 1, 17)
    assert (tokens.sum(-1) >= 4).all() and tokens[2].sum() > 12
    assert eventful.memory_bytes > 0


def test_r_changes_start_streams_clean():
    video = make_video(4)
    model, tome, eventful = both(TopK(5))
    run(model, video[:2])
    tome.r = 1
    found = run(model, video[2:3])
    assert eventful.frames[0].first and tome.tokens == [16, 15, 14]
    assert torch.allclose(found[0], fresh(video[2:3], TopK(5), r=1)[0], atol=1e-5)
    tome.remove()
    found = run(model, video[3:])
    assert eventful.frames[0].first
    assert torch.allclose(found[0], run(make_model(), video[3:])[0], atol=1e-5)


@pytest.mark.filterwarnings("ignore:Budget. .* cannot be held")
def test_one_budget_turns_k_and_then_r():
    model, tome, eventful = both(TopK(8), r=0)
    video = make_video(30)
    target = count_macs(make_model(), video[0]).total / 8
    budget = Budget((eventful, tome), macs=target, k=(2, 17), r=(0, 2))
    starts = []
    with torch.no_grad():
        for frame in video:
            with budget.frame():
                model(frame)
            starts.append(eventful.frames[0].first)
    assert tome.r > 0 and eventful.policy.k == 2
    assert sum(starts) == 1 + tome.r  # the first frame, and one for each r


@pytest.mark.parametrize("first_off", ["tome", "eventful"])
def test_both_come_off_in_either_order(first_off):
    model, tome, eventful = both(TopK(5), tome_first=False)
    keys = list(make_model().state_dict())
    assert list(model.state_dict()) == keys
    assert [found.method for found in links(model.blocks[0])] == ["ToMe", "Eventful"]
    with pytest.raises(RuntimeError, match="with ToMe and Eventful on it cannot be pickled"):
        model.blocks[0].__reduce_ex__(2)
    video = make_video(2)
    run(model, video)
    one, other = (tome, eventful) if first_off == "tome" else (eventful, tome)
    one.remove()
    assert other.attached and not one.attached
    other.remove()
    assert not any(map(is_attached, model.modules()))
    assert type(model) is type(make_model()) and type(model.blocks[0].attn.qkv) is torch.nn.Linear
    assert torch.equal(run(model, video)[1], run(make_model(), video)[1])


def test_copies_start_without_streams_and_training_is_tomes():
    video = make_video(3)
    model, _, _ = both(TopK(5))
    run(model, video[:2])
    twin = copy.deepcopy(model)
    assert link(twin, "Eventful").state.store.names == []
    assert torch.allclose(run(twin, video[2:])[0], fresh(video[2:], TopK(5))[0], atol=1e-5)
    plain = make_model().train()
    apply_tome(plain, R)
    model.train()
    x = torch.cat(video)
    assert torch.allclose(model(x), plain(x), atol=1e-6)
    model(x).sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad is not None


def test_threads_with_streams_of_their_own():
    videos = {name: make_video(5, seed) for seed, name in enumerate("abc")}
    model, _, eventful = both(TopK(5))
    outs = {}

    def work(name):
        with eventful.stream(name):
            outs[name] = run(model, videos[name])

    threads = [threading.Thread(target=work, args=(name,)) for name in videos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, video in videos.items():
        for a, b in zip(outs[name], fresh(video, TopK(5))):
            assert torch.allclose(a, b, atol=1e-5)


def test_intermediate_layers_come_back_whole():
    video = make_video(3)
    model, _, _ = both(TopK(17))
    naive = apply_tome(plain := make_model(), R)
    with torch.no_grad():
        found = model.get_intermediate_layers(video[0], n=3)
        expected = plain.get_intermediate_layers(video[0], n=3)
    assert naive.attached
    for a, b in zip(found, expected):
        assert a.shape == (1, 16, 32) and torch.allclose(a, b, atol=1e-5)


def test_vivit_merges_in_its_clips():
    model = scramble(vivit()).eval()
    x = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, :, 2:] = x[:, :, :2]
    apply_tome(model, R)
    expected = model(x).detach()
    apply_eventful(model, TopK(4))
    with torch.no_grad():
        assert torch.allclose(model(x), expected, atol=1e-5)


def test_what_is_refused_by_name():
    model = scramble(vitdet()).eval()
    handle = apply_eventful(model, TopK(6))
    with pytest.raises(RuntimeError, match=r"mmvitaccel ViTDet return all tokens.*remove Even"):
        apply_tome(model, R)
    handle.remove()
    apply_tome(model, R)
    with pytest.raises(RuntimeError, match=r"mmvitaccel ViTDet return all tokens.*remove ToMe"):
        apply_eventful(model, TopK(6))
    model = make_model()
    handle = apply_tome(model, R, matching=dict(type="Threshold"))
    with pytest.raises(
        RuntimeError, match=r"Threshold\(similarity=0.9\) merges a different number"
    ):
        apply_eventful(model, Threshold(1.0))
    handle.remove()
    apply_eventful(model, TopK(4), kv_pool_size=2)
    with pytest.raises(RuntimeError, match=r"kv_pool_size=2 needs the token grid"):
        apply_tome(model, R)
    model, _, _ = both(Weighted(TopK(4), [LastObjects()]))
    with pytest.raises(ValueError, match="ToMe on the same model merges tokens of different po"):
        run(model, make_video(1))


@pytest.mark.parametrize(
    "options",
    [
        dict(reduction="prune"),
        dict(matching=dict(type="Grid", grid_size=(4, 4))),
        dict(metric="tokens"),
    ],
)
def test_other_ways_to_merge(options):
    video = make_video(2)
    model = make_model()
    apply_tome(model, 4, **options)
    expected = run(model, video)[0]
    eventful = apply_eventful(model, TopK(17))
    found = run(model, [video[0], video[0], video[1]])
    assert torch.allclose(found[0], expected, atol=1e-5)
    assert torch.allclose(found[1], expected, atol=1e-5)
    assert not torch.allclose(found[2], expected, atol=1e-2)
    assert eventful.frames[0].num_tokens == 17


def test_random_drops_stay_as_they_were_drawn():
    torch.manual_seed(0)
    model, frame = make_model(), make_video(1)[0]
    apply_tome(model, R, matching=dict(type="RandomDrop"))
    apply_eventful(model, TopK(5))
    first, second = run(model, [frame, frame])
    assert torch.allclose(first, second, atol=1e-5)
