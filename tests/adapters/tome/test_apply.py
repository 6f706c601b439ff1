"""ToMe on a model: what it computes, how it is steered and what it refuses."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from mmvitaccel.adapters.attach import Swap, attach, detach
from mmvitaccel.adapters.tome.apply import apply_tome
from tests.adapters.conftest import scramble, vitdet

timm = pytest.importorskip("timm", reason="timm is not installed")
vision_transformer = pytest.importorskip("timm.models.vision_transformer")


def make_vit(**kwargs):
    torch.manual_seed(0)
    size = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=5)
    model = vision_transformer.VisionTransformer(**{**size, **kwargs})
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.3 if parameter.ndim == 1 else 0.0, 0.15)
    return model.eval()


def images(count=2, size=(32, 32)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def group_means(x, source):
    """Every token becomes the mean of its group, by the sources (B, N, N0) of the groups."""
    share = source.to(x.dtype) / source.sum(dim=2, keepdim=True)
    return source.to(x.dtype).transpose(1, 2) @ (share @ x)


def dense_reference(model, x, sources, proportional):
    """All tokens, dense, with the host's own attention and MLP; groups share their mean."""
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    before = torch.eye(x.shape[1], dtype=torch.bool).expand(len(x), -1, -1)
    for block, source in zip(model.blocks, sources):
        mask = None
        if not proportional:  # a group weighs as one token: each member by 1 / its size
            size = before.sum(dim=2, keepdim=True).to(x.dtype)
            mask = -(before.to(x.dtype).transpose(1, 2) @ size).log()
            mask = mask.transpose(1, 2)[:, None].expand(-1, -1, x.shape[1], -1)
        branch = block.attn(block.norm1(x), attn_mask=mask)
        x = group_means(x + block.drop_path1(block.ls1(branch)), source)
        x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        before = source
    return model.norm(x)


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        dict(global_pool="avg", class_token=False),
        dict(reg_tokens=4, init_values=0.5),
        dict(reg_tokens=1, no_embed_class=True),
        dict(qk_norm=True, img_size=(24, 40)),
    ],
    ids=["class token", "mean pooling", "registers", "one register", "odd count"],
)
def test_merging_equals_sharing_the_mean(kwargs, proportional):
    model = make_vit(**kwargs).double()
    x = images(size=model.patch_embed.img_size).double()
    handle = apply_tome(model, [3, 0, 2, 1], trace_source=True, proportional_attention=proportional)
    with torch.no_grad():
        ours = model.forward_features(x)
        pooled = model.forward_head(ours)
        logits = model(x)
    sources = handle.info.sources
    handle.remove()
    with torch.no_grad():
        expected = dense_reference(model, x, sources, proportional)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(logits, model.forward_head(expected), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pooled, logits)


@pytest.mark.parametrize("metric", ["keys", "queries", "values", "tokens"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_first_block_merges_what_is_most_similar(metric, similarity):
    model, x = make_vit(), images(1)
    matching = dict(type="Bipartite", similarity=similarity)
    handle = apply_tome(model, 2, trace_source=True, metric=metric, matching=matching)
    with torch.no_grad():
        model(x)
        source = handle.info.sources[0][0]
        handle.remove()
        block = model.blocks[0]
        tokens = model._pos_embed(model.patch_embed(x))
        q, k, v = block.attn.qkv(block.norm1(tokens)).view(1, 17, 3, 4, 8).unbind(2)
        features = {"keys": k, "queries": q, "values": v}
        if metric == "tokens":
            feature = (tokens + block.attn(block.norm1(tokens)))[0]
        else:
            feature = features[metric].mean(dim=2)[0]
    if similarity == "cosine":
        feature = feature / feature.norm(dim=-1, keepdim=True)
    scores = {
        (a, b): (feature[a] @ feature[b]).item() for a in range(2, 17, 2) for b in range(1, 17, 2)
    }
    best = {a: max(range(1, 17, 2), key=lambda b, a=a: scores[a, b]) for a in range(2, 17, 2)}
    ranked = sorted(best, key=lambda a: -scores[a, best[a]])
    groups = {b: {b} for b in range(17) if b not in ranked[:2]}
    for a in ranked[:2]:
        groups[best[a]].add(a)
    ours = {frozenset(row.nonzero().flatten().tolist()) for row in source}
    assert ours == {frozenset(group) for group in groups.values()}


def test_pruning_keeps_what_the_class_token_attends_to():
    model, x = make_vit(), images(1)
    handle = apply_tome(model, [3, 0, 0, 0], trace_source=True, reduction="prune")
    with torch.no_grad():
        features = model.forward_features(x)
        source = handle.info.sources[0][0]
        sizes = handle.info.sizes[0]
        handle.remove()
        block = model.blocks[0]
        h = block.norm1(model._pos_embed(model.patch_embed(x)))
        q, k, _ = block.attn.qkv(h).view(1, 17, 3, 4, 8).permute(2, 0, 3, 1, 4)
        attention = (q[:, :, :1] @ k.transpose(2, 3) * block.attn.scale).softmax(-1).mean(1)[0, 0]
    dropped = set((attention[1:].argsort()[:3] + 1).tolist())
    assert set(source[0].nonzero().flatten().tolist()) == {0, *dropped}
    assert torch.equal(sizes, torch.ones(1, 14, 1))
    for patch in dropped:
        assert torch.equal(features[0, patch], features[0, 0])


def test_dense_outputs_are_maps_of_shared_values():
    model, x = make_vit(reg_tokens=2), images()
    handle = apply_tome(model, 2, trace_source=True)
    with torch.no_grad():
        maps = model.forward_intermediates(x, norm=True, intermediates_only=True)
        sources = handle.info.sources
        features = model.forward_features(x)
        merged = model.forward_intermediates(
            x, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    assert [m.shape for m in maps] == [(2, 32, 4, 4)] * 4
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), features[:, 3:])
    for (tokens, prefix), source in zip(merged, sources):
        assert prefix.shape == (2, 3, 32)
        for image in range(2):
            for group in source[image, 3:, 3:]:
                values = tokens[image, group]
                assert torch.equal(values, values[:1].expand_as(values))


def test_mean_pooling_weighs_by_size():
    model, x = (
        make_vit(global_pool="avg", class_token=False, fc_norm=False, num_classes=0),
        images(),
    )
    handle = apply_tome(model, [6, 0, 0, 0])
    merged = {}
    hook = model.blocks[1].register_forward_hook(lambda m, args, out: merged.update(x=out))
    with torch.no_grad():
        pooled = model(x)
        x_last = merged["x"]
        for block in model.blocks[2:]:
            x_last = block(x_last)
    hook.remove()
    assert x_last.shape[1] == 10
    assert pooled.shape == (2, 32)
    features = model.forward_features(x).detach()
    torch.testing.assert_close(pooled, features.mean(dim=1))
    assert handle.info.tokens == [10, 10, 10, 10]


def test_padding_tokens_do_no_harm():
    """An image that is black on one side has equal, with no bias all-zero, tokens there."""
    model = make_vit(pos_embed="none", class_token=False, global_pool="avg", qkv_bias=False)
    nn.init.zeros_(model.patch_embed.proj.bias)
    nn.init.zeros_(model.blocks[0].norm1.bias)
    x = images()
    x[..., 8:] = 0
    apply_tome(model, 4)
    out = model(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_compiles_without_graph_breaks():
    if not hasattr(torch.compiler, "is_compiling"):
        pytest.skip("torch.compile of this torch breaks the graph at attribute writes")
    model, x = make_vit(), images()
    handle = apply_tome(model, 2)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), expected)
        assert handle.info.tokens == [15, 13, 11, 9]
        handle.r = 1
        torch.testing.assert_close(compiled(x), model(x))
        assert handle.info.tokens == [16, 15, 14, 13]
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("r", "tokens"),
    [
        (2, [15, 13, 11, 9]),
        ([1, 2, 3, 0], [16, 14, 11, 11]),
        ((2, -1), [13, 10, 9, 9]),
        (dict(r=2, inflection=1), [17, 16, 13, 9]),
        (0.25, [13, 10, 8, 7]),
        (100, [9, 5, 3, 2]),
    ],
)
def test_schedules(r, tokens):
    model = make_vit()
    handle = apply_tome(model, 0)
    handle.r = r
    with torch.no_grad():
        model(images())
    assert handle.info.tokens == handle.tokens == tokens
    assert handle.r == r


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(r=-1), ValueError, "r=-1 is negative"),
        (dict(r=[1, 2]), ValueError, "has 2 entries but the model has 4 blocks"),
        (dict(metric="logits"), ValueError, "metric='logits' must be one of keys, queries"),
        (
            dict(matching=dict(type="Bipartite", similarity="l2")),
            ValueError,
            "Bipartite: similarity='l2' must be one of cosine, dot",
        ),
        (
            dict(matching=dict(type="Nearest")),
            ValueError,
            "no registered type; known are Bipartite, Grid, RandomDrop, RandomMatching, T",
        ),
        (dict(matching=3), TypeError, "matching=3 has no method 'match'"),
        (
            dict(reduction="prune", matching=dict(type="Grid")),
            ValueError,
            "matching={'type': 'Grid'} would be left out; give one of the two",
        ),
        (dict(reduction="drop"), ValueError, "reduction='drop' must be one of merge, prune"),
    ],
)
def test_bad_arguments_leave_the_model_alone(arguments, error, message):
    model = make_vit()
    kind = type(model)
    with pytest.raises(error, match=message):
        apply_tome(model, **arguments)
    assert type(model) is kind
    handle = apply_tome(model, 1)
    with pytest.raises(error, match=message):
        apply_tome(model, **arguments)
    assert handle.attached
    assert handle.r == 1


def test_pruning_needs_a_class_token():
    model = make_vit(global_pool="avg", class_token=False)
    with pytest.raises(ValueError, match="reads the class token's attention and this timm Vis"):
        apply_tome(model, 2, reduction="prune")


def test_a_model_without_attention_is_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(ValueError, match=r"Sequential holds no supported vision transformer; sup"):
        apply_tome(model, 2)


def test_blocks_of_another_form_are_named():
    model = make_vit(block_fn=vision_transformer.ParallelThingsBlock)
    with pytest.raises(
        ValueError, match=r"blocks of class .*ParallelThingsBlock are not supported"
    ):
        apply_tome(model, 2)
    model = make_vit()

    class Strange(vision_transformer.Block):
        def forward(self, x):
            return x

    model.blocks[2].__class__ = Strange
    with pytest.raises(ValueError, match="Strange overrides the forward of Block"):
        apply_tome(model, 2)
    assert type(model.blocks[0]) is vision_transformer.Block


def test_subclasses_match_and_look_alikes_do_not():
    class Mine(vision_transformer.VisionTransformer):
        """A user's own."""

    model = make_vit()
    model.__class__ = Mine
    apply_tome(model, 2).remove()
    assert type(model) is Mine

    class VisionTransformer(nn.Module):
        """Of the same name, but not timm's."""

    with pytest.raises(ValueError, match="holds no supported vision transformer"):
        apply_tome(VisionTransformer(), 2)


def test_the_transformer_is_found_inside_and_two_must_be_named():
    inner = make_vit()
    handle = apply_tome(nn.Sequential(nn.Identity(), inner, nn.ReLU()), 2)
    assert handle.model is inner
    both = nn.ModuleDict(dict(left=make_vit(), right=make_vit()))
    with pytest.raises(ValueError, match="holds 2 vision transformers, 'left'"):
        apply_tome(both, 2)


def test_too_few_tokens():
    model = make_vit(img_size=8)
    apply_tome(model, 1)
    with pytest.raises(ValueError, match="r=1 but only 1 tokens beside 1 prefix tokens"):
        model(images(size=(8, 8)))
    apply_tome_quietly(model, 0)
    assert model(images(size=(8, 8))).shape == (2, 5)


def apply_tome_quietly(model, r):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return apply_tome(model, r)


def test_masks_are_refused():
    model = make_vit()
    apply_tome(model, 2)
    with pytest.raises(ValueError, match="called with a causal mask"):
        model(images(), is_causal=True)
    with pytest.raises(ValueError, match="called with an attention mask"):
        model(images(), attn_mask=torch.zeros(17, 17))


def test_applying_twice_replaces_and_says_so():
    model, x = make_vit(), images()
    dense = model(x)
    first = apply_tome(model, 4)
    with pytest.warns(UserWarning, match="was on this VisionTransformer with r=4 and is replaced"):
        second = apply_tome(model, 2)
    model(x)
    assert second.info.tokens == [15, 13, 11, 9]
    assert not first.attached
    with pytest.raises(RuntimeError, match="r cannot be set, this handle's ToMe was removed from"):
        first.r = 1
    first.remove()
    assert second.attached
    second.remove()
    assert torch.equal(model(x), dense)


def test_changing_r_in_training_says_so_and_holds_from_the_next_pass():
    model, x = make_vit().train(), images()
    handle = apply_tome(model, 2)
    handle.r = 3
    loss = model(x).sum()
    with pytest.warns(UserWarning, match="r changes from 3 to 1 while the model is in training"):
        handle.r = 1
    loss.backward()
    model(x)
    assert handle.info.tokens == [16, 15, 14, 13]
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handle.r = 2


def test_r_cannot_change_during_a_pass():
    model = make_vit()
    handle = apply_tome(model, 2)
    hook = model.blocks[1].register_forward_hook(lambda *_: setattr(handle, "r", 5))
    with pytest.raises(RuntimeError, match="r cannot change from 2 to 5 during a forward pass"):
        model(images())
    hook.remove()
    assert model(images()).shape == (2, 5)
    assert handle.info.tokens == [15, 13, 11, 9]


def test_another_method_on_the_model_is_refused():
    model = make_vit()
    attach(model, "Other", [Swap(block, {}) for block in model.blocks], None)
    with pytest.raises(
        RuntimeError, match=r"ToMe cannot be attached to .*: Other is already attached"
    ):
        apply_tome(model, 2)
    detach(model, "Other")
    handle = apply_tome(model, 2)
    with pytest.raises(
        RuntimeError, match=r"Other cannot be attached to .*: ToMe is already attached"
    ):
        attach(model, "Other", [], None)
    assert handle.attached


def test_a_block_called_alone_is_the_hosts():
    model = make_vit()
    tokens = torch.randn(2, 17, 32)
    expected = model.blocks[0](tokens)
    apply_tome(model, 3)
    assert torch.equal(model.blocks[0](tokens), expected)
    caught = []
    hook = model.blocks[0].register_forward_hook(lambda m, given, out: caught.append(given[0]))
    model(images())  # a pass that might be recomputed, and then its very memory given alone
    hook.remove()
    assert model.blocks[0](caught[0]).shape == (2, 17, 32)


def test_other_image_sizes_and_batches_follow_each_other():
    model = make_vit(dynamic_img_size=True)
    handle = apply_tome(model, 2)
    for count, size in ((2, (32, 32)), (1, (24, 48)), (3, (16, 64))):
        assert model(images(count, size)).shape == (count, 5)
        assert handle.info.tokens[0] == size[0] * size[1] // 64 + 1 - 2


def test_an_image_alone_and_in_a_batch_merge_the_same():
    model, x = make_vit(), images(4)
    handle = apply_tome(model, 3, trace_source=True)
    with torch.no_grad():
        together = model(x)
        sources = handle.info.sources
        for index in range(4):
            torch.testing.assert_close(model(x[index : index + 1]), together[index : index + 1])
            for alone, batch in zip(handle.info.sources, sources):
                assert torch.equal(alone[0], batch[index])


@pytest.mark.parametrize("way", ["vmap", "grad"])
def test_transforms_of_torch_func(way):
    model = make_vit()
    apply_tome(model, r=3)
    x = torch.randn(2, 1, 3, 32, 32)
    if way == "vmap":
        with torch.no_grad():
            found, expected = torch.func.vmap(model)(x), torch.stack([model(one) for one in x])
    else:
        found = torch.func.grad(lambda x: model(x).square().sum())(x[0])
        asked = x[0].clone().requires_grad_()
        model(asked).square().sum().backward()
        expected = asked.grad
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_empty_batch_and_tensors_without_values(device):
    for model, side in ((make_vit(), 32), (scramble(vitdet()), 64)):
        model.eval()
        shapes = [out.shape for out in _flat(model(torch.zeros(2, 3, side, side)))]
        apply_tome(model, r=3)
        model.to(device)
        size = 0 if device == "cpu" else 2
        found = _flat(model(torch.zeros(size, 3, side, side, device=device)))
        assert [out.shape for out in found] == [(size, *one[1:]) for one in shapes]


def _flat(out):
    return [out] if isinstance(out, torch.Tensor) else list(out)


def test_a_shallow_copy_is_refused_with_the_cure():
    model = make_vit()
    apply_tome(model, r=3)
    with pytest.raises(RuntimeError, match=r"copy it by copy\.deepcopy"):
        copy.copy(model)
