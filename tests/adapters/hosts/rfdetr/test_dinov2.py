"""What is particular to RF-DETR's backbone; what all hosts share is in the contract."""

from __future__ import annotations

import copy

import pytest
import torch

from mmvitaccel import Threshold, TopK, apply_eventful, apply_tome
from mmvitaccel.adapters.hosts.rfdetr import dinov2
from mmvitaccel.analysis.head_similarity import block_maps
from mmvitaccel.core.eventful.frame import Clips, Frame, streams
from tests.adapters.conftest import scramble
from tests.adapters.rfdetr_models import MAP, backbone

pytestmark = pytest.mark.extras("hosts", "rfdetr")


def images(*shape):
    return torch.randn(*(shape or MAP), generator=torch.Generator().manual_seed(1))


def ready(**options):
    return scramble(backbone(**options)).eval()


def test_no_class_token_or_register_of_any_window_merges():
    model, x = ready(), images()
    handle = apply_tome(model, 1000, trace_source=True)
    with torch.no_grad():
        model(x)
    first, full, last = handle.info.sources
    # windows of 16 patches behind 2 prefix tokens; all four of an image in the block between
    assert handle.info.tokens == [2 + 8, 4 * 2 + 32, 2 + 8]
    assert [len(each) for each in (first, full, last)] == [8, 2, 8]
    assert torch.equal(full[:, :8, :8], torch.eye(8).bool().expand(2, -1, -1))
    assert not full[:, 8:, :8].any() and not full[:, :8, 8:].any()


def test_the_block_over_all_windows_merges_across_them():
    """Patches that are alike in two windows merge there, and in no block within windows."""
    model = ready()
    x = images(1, 3, 64, 64)
    x[..., 32:] = x[..., :32]  # the windows on the right repeat those on the left
    with torch.no_grad():
        model.embeddings.position_embeddings.zero_()
        handle = apply_tome(model, [0, 4, 0], trace_source=True)
        model(x)
    merged = handle.info.sources[1][0, 8:, 8:].unflatten(1, (4, 16)).any(2)  # in which windows
    assert (merged.sum(1) > 1).any()


@torch.no_grad()
def test_attention_maps_are_of_windows_where_blocks_attend_within_them():
    model = ready()
    tokens = model.embeddings(images())
    for index, shape in enumerate([(8, 4, 18, 18), (2, 4, 72, 72), (8, 4, 18, 18)]):
        block = model.encoder.layer[index]
        found = block_maps(block, dinov2.ADAPTERS[0].specs[0], tokens, False, index == 1)
        assert found.shape == shape
        block.attention.attention.register_forward_hook(keep := Kept())
        block(tokens, False, index == 1)
        values = keep.values.unflatten(2, (4, 8)).transpose(1, 2)
        v = block.attention.attention.value(block.norm1(tokens)).view(len(found), -1, 4, 8)
        torch.testing.assert_close(found @ v.transpose(1, 2), values, rtol=1e-4, atol=1e-5)


class Kept:
    """A hook that keeps what attention gives, (B, N, C)."""

    def __call__(self, module, args, out):
        self.values = out[0]


def test_blocks_that_do_not_run_are_not_counted():
    model = ready(num_hidden_layers=5, out_features=["stage1"], window_block_indexes=[0])
    with pytest.raises(ValueError, match="3 entries"):
        apply_tome(model, [1, 1, 1])
    handle = apply_tome(model, [1, 2])
    with torch.no_grad():
        model(images())
    assert handle.info.tokens == [17, 70]


@torch.no_grad()
def test_a_frame_is_one_stream_whatever_its_windows():
    model = ready()
    alone = copy.deepcopy(model)
    handle = apply_eventful(model, TopK(6))
    first, second = images(1, 3, 64, 64), images(1, 3, 64, 64).flip(3)
    for number in range(3):
        frames = [first + 0.1 * number, second - 0.1 * number]
        with handle.stream(["a", "b"]):
            together = model(torch.cat(frames)).feature_maps
        assert [(f.stream, f.num_tokens) for f in handle.frames] == [("a", 72), ("b", 72)]
    assert [frame.passed for frame in handle.frames] == [[(6, 6, 6)] * 3] * 2
    other = apply_eventful(alone, TopK(6))
    for number in range(3):
        with other.stream("b"):
            expected = alone(second - 0.1 * number).feature_maps
    for found, wanted in zip(together, expected):
        torch.testing.assert_close(found[1:], wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_change_within_a_window_leaves_the_others_as_they_are():
    model, x = ready(window_block_indexes=[0, 1, 2]), images(1, 3, 64, 64)
    handle = apply_eventful(model, Threshold(1e-3))
    before = [part.clone() for part in model(x).feature_maps]
    changed = x.clone()
    changed[..., :32, :32] += 0.5  # the first of four windows
    for found, old in zip(model(changed).feature_maps, before):
        assert torch.equal(found[..., 4:, :], old[..., 4:, :])
        assert torch.equal(found[..., :, 4:], old[..., :, 4:])
        assert not torch.allclose(found[..., :4, :4], old[..., :4, :4], atol=1e-3)
    assert all(0 < gate <= 18 for block in handle.frames[0].passed for gate in block)


@torch.no_grad()
def test_a_clip_of_one_stream_goes_frame_by_frame():
    model, x = ready(), images(3, 3, 64, 64)
    alone = copy.deepcopy(model)
    apply_eventful(model, TopK(9))
    handle = apply_eventful(alone, TopK(9))
    with streams(Clips([[Frame("a", number) for number in range(3)]])):
        together = model(x).feature_maps
    for number, frame in enumerate(x):
        with handle.stream("a"):
            for found, wanted in zip(together, alone(frame[None]).feature_maps):
                torch.testing.assert_close(found[number : number + 1], wanted)


def test_training_on_clips_equals_the_dense_model_when_all_passes():
    model, x = ready(), images(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x).feature_maps
    handle = apply_eventful(model, TopK(72))
    handle.train_on_clips(2, TopK(72))
    model.train()
    for found, wanted in zip(model(x).feature_maps, expected):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_merges_do_not_hold_over_blocks_with_other_windows():
    apply_tome(model := ready(), 2, restore="end")
    with pytest.raises(ValueError, match="attends within windows or over all as it is called"):
        model(images())
    apply_tome(model := ready(num_windows=1), 2, restore="end")
    assert model(images()).feature_maps[0].isfinite().all()


def test_attention_weights_are_refused():
    model = ready()
    apply_tome(model, 2)
    with pytest.raises(ValueError, match=r"called with output_attentions, but attention weights"):
        model(images(), output_attentions=True)


def test_an_attention_of_ones_own_is_refused():
    model = ready()

    class Mine(type(model.encoder.layer[1].attention.attention)):
        def forward(self, hidden_states, output_attentions=False):
            return hidden_states, None

    model.encoder.layer[1].attention.attention.__class__ = Mine
    with pytest.raises(ValueError, match=r"its attention is .*Mine, known are .*SelfAttention"):
        apply_tome(model, 2)


def test_a_version_that_was_not_tested_says_so(monkeypatch):
    model = ready()
    monkeypatch.setattr(dinov2, "version", lambda name: "2.0.0")
    with pytest.warns(
        UserWarning, match=rf"comes from rfdetr 2\.0\.0; the tested version is {dinov2.TESTED}"
    ):
        apply_tome(model, 2)


def test_a_saved_model_has_the_hosts_own_class_name_and_weights(tmp_path):
    model, x = ready(), images()
    with torch.no_grad():
        expected = model(x).feature_maps
    apply_tome(model, 0)
    model.save_pretrained(tmp_path)
    assert '"WindowedDinov2WithRegistersBackbone"' in (tmp_path / "config.json").read_text()
    with torch.no_grad():
        again = type(model).host_class.from_pretrained(tmp_path).eval()
        for found, wanted in zip(again(x).feature_maps, expected):
            torch.testing.assert_close(found, wanted)


def test_the_hosts_own_gradient_checkpointing():
    model, x = ready().train(), images().requires_grad_()
    apply_tome(model, [3, 1, 2])

    def gradients():
        model.zero_grad()
        sum(part.square().sum() for part in model(x).feature_maps).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.gradient_checkpointing_enable()
    assert model.encoder.gradient_checkpointing
    found = gradients()
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        tolerance = 1e-5 * max(1.0, grad.abs().max().item())
        torch.testing.assert_close(found[name], grad, rtol=0, atol=tolerance)


def test_compiles():
    model, x = ready(), images()
    apply_tome(model, 2)
    with torch.no_grad():
        expected = model(x).feature_maps
        # The host's own positions leave the compiler, so that there is no one graph
        compiled = torch.compile(model, backend="eager")
        for found, wanted in zip(compiled(x).feature_maps, expected):
            torch.testing.assert_close(found, wanted)
    torch._dynamo.reset()


def test_in_rfdetrs_own_module():
    from rfdetr.models.backbone.dinov2 import DinoV2

    model = DinoV2(
        (112, 112),
        [2, 5],
        "small",
        use_registers=False,
        load_dinov2_weights=False,
        num_windows=2,
        positional_encoding_size=8,
    )
    model, x = scramble(model).eval(), images(1, 3, 112, 112)
    with torch.no_grad():
        expected = model(x)
        handle = apply_tome(model, 0)
        for found, wanted in zip(model(x), expected):
            scale = max(1.0, wanted.abs().max().item())
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 * scale)
        handle.r = 4
        assert [part.shape for part in model(x)] == [part.shape for part in expected]
    assert handle.info.tokens == [13, 13, 64, 13, 13, 64]
