"""An eventful model as other programs use it: parts in training, quantized, transformed, empty."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.core.kernels import half_linear
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from tests.adapters.conftest import scramble, timm_vit, vitdet


def make_model(**kwargs):
    return scramble(timm_vit(**kwargs)).eval()


def make_video(frames, shape=(1, 3, 32, 32)):
    noise = torch.Generator().manual_seed(0)
    return torch.randn(frames, *shape, generator=noise).cumsum(0)


def dropout(model):
    model.blocks[1].mlp.drop1.train()


def drop_path(model):
    model.blocks[1].drop_path1.train()


def last_block(model):
    model.blocks[-1].train()


@pytest.mark.parametrize("part", [dropout, drop_path, last_block])
def test_a_part_in_training_is_computed_whole_and_said_once(part):
    model = make_model(proj_drop_rate=0.5, drop_path_rate=0.5)
    plain = copy.deepcopy(model)
    handle = apply_eventful(model, TopK(5))
    video = make_video(4)

    def outputs(of, frames):
        torch.manual_seed(1)
        with torch.no_grad():
            return [of(frame) for frame in frames]

    with handle.stream("a"):
        outputs(model, video[:2])
        part(model), part(plain)
        with pytest.warns(UserWarning, match=r"'blocks\.[12].*' is in training mode") as said:
            found = outputs(model, video[2:])
        assert len(said) == 1
        for out, expected in zip(found, outputs(plain, video[2:])):
            assert torch.equal(out, expected)
        model.train(), model.eval()
        outputs(model, video[:1])
    assert handle.frames[0].first


def test_blocks_that_are_frozen_in_a_training_are_the_hosts_own():
    model = make_model()
    plain = copy.deepcopy(model)
    apply_eventful(model, TopK(5))
    batch = torch.randn(4, 3, 32, 32)
    for each in (model, plain):
        each.train()
        each.blocks[0].eval()
    assert torch.equal(model(batch), plain(batch))


@pytest.mark.parametrize("motion", [False, True])
def test_an_empty_batch_is_empty_and_changes_no_stream(motion):
    from mmvitaccel import Translation

    model = scramble(vitdet()).eval()
    handle = apply_eventful(model, TopK(9), motion=Translation() if motion else None)
    video = make_video(2, (1, 3, 64, 64))
    empty = torch.zeros(0, 3, 64, 64)
    with handle.stream("a"):
        (first,) = model(video[0])
        (none,) = model(empty)
        model(video[1])
    assert none.shape == (0, *first.shape[1:]) and not handle.frames[0].first
    with handle.stream([]):
        assert model(empty)[0].shape == none.shape


def test_an_empty_batch_of_a_neck():
    neck = scramble(SimpleFPN(in_channels=16, out_channels=16)).eval()
    handle = apply_eventful_neck(neck, TopK(9))
    video = make_video(2, (1, 16, 8, 12))
    with handle.stream("a"):
        shapes = [level.shape[1:] for level in neck(video[0])]
        assert [level.shape for level in neck(video[0, :0])] == [(0, *shape) for shape in shapes]
        neck(video[1])
    assert not handle.frames[0].first


@pytest.mark.parametrize(("make", "side"), [(timm_vit, 32), (vitdet, 64)])
@pytest.mark.parametrize("quantized_first", [True, False])
def test_dynamic_quantization_before_and_after(make, side, quantized_first):
    def quantized(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in torch
            return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)

    def outputs(model):
        outs = [model(frame) for frame in make_video(3, (1, 3, side, side))]
        return torch.stack([out if make is timm_vit else out[0] for out in outs])

    model = scramble(make()).eval()
    plain = quantized(model)
    expected = outputs(plain)
    if quantized_first:
        model = plain
    apply_eventful(model, Always())
    model = model if quantized_first else quantized(model)
    assert not any(isinstance(module, nn.Linear) for module in model.blocks.modules())
    torch.testing.assert_close(outputs(model), expected, rtol=0, atol=1e-5)


def test_linear_layers_keep_their_class_until_they_run_in_half(monkeypatch):
    monkeypatch.setattr(half_linear, "_single_is_faster", lambda: True)
    model = make_model()
    handle = apply_eventful(model, TopK(5))
    layers = [m for block in model.blocks for m in block.modules() if isinstance(m, nn.Linear)]
    with handle.stream("a"):
        model(make_video(1)[0])
        assert {type(layer) for layer in layers} == {nn.Linear}
        with torch.autocast("cpu"):
            model(make_video(1)[0])
        assert nn.Linear not in {type(layer) for layer in layers}
    handle.remove()
    assert {type(layer) for layer in layers} == {nn.Linear}


@pytest.mark.parametrize("way", ["vmap", "grad", "jvp"])
def test_transforms_of_torch_func_are_refused(way):
    model = make_model()
    apply_eventful(model, TopK(5))
    x = torch.randn(2, 1, 3, 32, 32)
    calls = {
        "vmap": lambda: torch.func.vmap(model)(x),
        "grad": lambda: torch.func.grad(lambda x: model(x).sum())(x[0]),
        "jvp": lambda: torch.func.jvp(model, (x[0],), (x[0],)),
    }
    with pytest.raises(RuntimeError, match=r"^Eventful: .* transform of torch.func .* remove the"):
        calls[way]()


def test_tensors_without_values_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = make_model()
    apply_eventful(model, TopK(5))
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(RuntimeError, match=r"^Eventful: the model is called with fake tensors"),
    ):
        model(torch.zeros(1, 3, 32, 32))
    model.to("meta")
    with pytest.raises(RuntimeError, match=r"^Eventful: the model is called with meta tensors"):
        model(torch.zeros(1, 3, 32, 32, device="meta"))


def test_a_policy_for_a_method_that_was_removed_is_refused():
    model = make_model()
    handle = apply_eventful(model, TopK(5))
    handle.remove()
    with pytest.raises(RuntimeError, match=r"^Eventful: policy cannot be set, .* was removed"):
        handle.policy = TopK(3)


class Adapted(nn.Module):
    """A linear layer with a low-rank adapter, as of LoRA, that can be turned off."""

    def __init__(self, base):
        super().__init__()
        self.base, self.is_on, self.active = base, True, ["default"]
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x)) if self.is_on else self.base(x)


def merge(layer):
    layer.base.weight.data += layer.up.weight @ layer.down.weight


def turn_off(layer):
    layer.is_on = False


def exchange(layer):
    layer.active.append("other")


@pytest.mark.parametrize("change", [merge, turn_off, exchange])
def test_an_adapter_that_is_merged_turned_off_or_exchanged_starts_clean(change):
    model = make_model()
    mlp = model.blocks[1].mlp
    mlp.fc1 = Adapted(mlp.fc1)
    handle = apply_eventful(model, TopK(5))
    firsts = []
    with handle.stream("a"), torch.no_grad():
        for number, frame in enumerate(make_video(4)):
            if number == 2:
                change(mlp.fc1)
            model(frame)
            firsts.append(handle.frames[0].first)
    assert firsts == [True, False, True, False]


def test_another_module_in_the_place_of_one_starts_clean():
    model = make_model()
    handle = apply_eventful(model, TopK(5))
    with handle.stream("a"):
        model(make_video(1)[0])
        model.blocks[1].mlp.act = nn.ReLU()
        model(make_video(1)[0])
    assert handle.frames[0].first


def test_a_stream_that_starts_over_with_every_frame_is_said_once():
    model = make_model(dynamic_img_size=True)
    handle = apply_eventful(model, TopK(5))
    small, large = make_video(4), make_video(4, (1, 3, 48, 48))
    with warnings.catch_warnings(record=True) as said, handle.stream("a"):
        warnings.simplefilter("always")
        for frames in zip(small, large):
            for frame in frames:
                model(frame)
        for frame in (*small, *large):
            model(frame)
    said = [str(one.message) for one in said if "in a row" in str(one.message)]
    assert len(said) == 1 and "4 frames of stream 'a' in a row were computed whole" in said[0]


def test_a_block_that_is_there_twice_is_refused():
    model = make_model()
    model.blocks[2] = model.blocks[0]
    with pytest.raises(ValueError, match=r"Eventful: blocks 0 and 2 of this .* are one module"):
        apply_eventful(model, TopK(5))


def test_torch_fx_is_refused_by_name():
    model = make_model()
    apply_eventful(model, TopK(5))
    with pytest.raises(RuntimeError, match=r"^Eventful cannot be traced by torch\.fx"):
        torch.fx.symbolic_trace(model)


def test_operations_of_later_frames_are_counted_also_with_gradients():
    from torch.utils.flop_counter import FlopCounterMode

    model = make_model()
    handle = apply_eventful(model, TopK(5))
    counts = []
    with handle.stream("a"):
        for frame in make_video(3):
            with FlopCounterMode(display=False) as counter:
                model(frame)
            counts.append(counter.get_total_flops())
    assert 0 < counts[1] == counts[2] < counts[0]


def test_a_class_that_was_replaced_since_is_not_lost_by_removing():
    model = make_model()
    handle = apply_eventful(model, TopK(5))
    block = model.blocks[1]
    block.__class__ = type("Sharded", (type(block),), {})  # as torch's fully_shard does
    with pytest.raises(RuntimeError, match="the class of a Block was replaced by Sharded since"):
        handle.remove()
    assert type(block).__name__ == "Sharded" and handle.attached
