from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmvitaccel.adapters.attach import Swap, attach, is_attached
from mmvitaccel.analysis.flops import count_config
from mmvitaccel.errors import UserError
from mmvitaccel.registry import HOOKS, MODELS
from mmvitaccel.runner.attached_hooks import attach_hooks, take_off
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.random_input import make_example, moving_frames


def first_half(module, host, x):
    return host(x[:, : x.shape[1] // 2])


class Handle:
    def __init__(self, model):
        self.patch = model.backbone.patch
        self.patch.register_forward_pre_hook(self.halve)

    def halve(self, _module, args):
        return (args[0][..., : args[0].shape[-1] // 2],)

    def remove(self):
        self.patch._forward_pre_hooks.clear()


@HOOKS.register_module()
class HalvingHook(Hook):
    """Takes half of the picture away."""

    def attach(self, model):
        return Handle(model)


class Backbone(nn.Module):
    def __init__(self, in_channels=3):
        super().__init__()
        self.patch = nn.Conv2d(in_channels, 4, 2, 2)

    def forward(self, x):
        return self.patch(x)


@MODELS.register_module()
class ToyNet(nn.Module):
    """A convolution and a linear layer over its positions."""

    def __init__(self, backbone, wrapped=False):
        super().__init__()
        self.backbone = Backbone(backbone.get("in_channels", 3))
        self.head = nn.Linear(4, 5)
        if wrapped:
            attach(self.head, "Toy", [Swap(self.head, {"forward": first_half})], None)

    def forward(self, x, mode):
        assert mode == "tensor"
        # (B, C, H, W) -> (B, H W, C)
        return self.head(self.backbone(x).flatten(2).transpose(1, 2))


def config(hooks=None, pipeline=(dict(type="CenterCrop", crop_size=8),), **model):
    return Config(
        dict(
            default_scope="mmvitaccel",
            model=dict(type="ToyNet", backbone={}) | model,
            test_dataloader=dict(dataset=dict(pipeline=list(pipeline))),
            default_hooks=hooks or {},
        )
    )


CONV, LINEAR = 4 * 4 * 3 * 4 * 4, 4 * 4 * 4 * 5


def test_figures():
    assert count_config(config()) == dict(
        params=4 * 3 * 4 + 4 + 4 * 5 + 5,
        macs=CONV + LINEAR,
        flops=2 * (CONV + LINEAR),
        input_shape=[3, 8, 8],
        views=1,
        modules=dict(backbone=dict(params=52, macs=CONV), head=dict(params=25, macs=LINEAR)),
        uncounted={},
    )
    deeper = count_config(config(), depth=2)["modules"]
    assert deeper["backbone.patch"] == deeper["backbone"]


def test_a_hook_that_attaches_is_counted_with_and_without():
    figures = count_config(
        config(
            hooks=dict(half=dict(type="mmvitaccel.HalvingHook"), timer=dict(type="IterTimerHook"))
        )
    )
    assert figures["macs"] == (CONV + LINEAR) // 2
    assert figures["dense"] == count_config(config())
    assert figures["saving"] == 0.5


def test_a_wrapper_of_the_config_is_counted_with_and_without():
    figures = count_config(config(wrapped=True))
    assert figures["modules"]["head"]["macs"] == LINEAR // 2
    assert figures["modules"]["backbone"]["macs"] == CONV
    assert figures["dense"] == count_config(config())
    assert figures["saving"] == pytest.approx(LINEAR / 2 / (CONV + LINEAR))


def test_both_are_taken_off():
    cfg = config(hooks=dict(half=dict(type="mmvitaccel.HalvingHook")))
    model = ToyNet({}, wrapped=True)
    assert take_off(model, attach_hooks(cfg, model))
    assert not is_attached(model.head)
    assert not model.backbone.patch._forward_pre_hooks
    assert not take_off(model, attach_hooks(config(), model))


def test_sizes():
    assert make_example(config(), None).inputs.shape == (1, 3, 8, 8)
    assert make_example(config(), (10, 6)).shape == (3, 10, 6)
    grey = config(backbone=dict(in_channels=1))
    assert make_example(grey, None).shape == (1, 8, 8)
    assert count_config(grey)["modules"]["backbone"]["macs"] == CONV // 3
    scaled = config(pipeline=[dict(type="Resize", scale=(12, 6))])
    assert make_example(scaled, None).shape == (3, 6, 12)
    with pytest.raises(UserError, match="fixes no input size; give --shape H W"):
        make_example(config(pipeline=[]), None)
    with pytest.raises(UserError, match="--shape 0 4: an image has at least 1 pixel"):
        make_example(config(), (0, 4))


def test_a_size_that_the_model_does_not_take():
    with pytest.raises(UserError, match=r"input of 3 x 1 x 1: in backbone\.patch \(Conv2d\): "):
        count_config(config(), (1, 1))


def test_detectors(detector_config):
    cfg = load_config(str(detector_config), {})
    assert make_example(cfg, None).shape == (3, 64, 64)
    assert make_example(cfg, (33, 70)).shape == (3, 64, 96)
    with pytest.raises(UserError, match=r"--shape 31 64: too small, .* give at least 32 32"):
        make_example(cfg, (31, 64))
    cfg.model.data_preprocessor.pad_size_divisor = 96
    assert make_example(cfg, (32, 64)).shape == (3, 96, 96)
    cfg.model.data_preprocessor.pad_size_divisor = 32
    figures = count_config(cfg, (64, 64))
    assert figures["modules"].keys() == {"backbone", "neck", "bbox_head"}
    # the laterals and outputs of two levels: 1 x 1 from 16 and 32 channels, 3 x 3 from 8, to 8
    assert figures["modules"]["neck"]["macs"] == 16 * 8 * (16 + 72) + 4 * 8 * (32 + 72)
    # on both levels: two towers of one 3 x 3 layer, 2 classes and 4 offsets of one anchor
    assert figures["modules"]["bbox_head"]["macs"] == (16 + 4) * 72 * (8 + 8 + 2 + 4)


def test_clips(recognizer_config):
    pytest.importorskip("mmaction")
    cfg = load_config(str(recognizer_config), {})
    example = make_example(cfg, None)
    assert (example.shape, example.inputs.shape) == ((3, 4, 32, 32), (1, 1, 3, 4, 32, 32))
    assert example.views == 2
    # tubes of 2 x 16 x 16 pixels: 2 x 2 x 2 tokens of 16, MLPs of 32
    n, c = 8, 16
    block = 4 * n * c * c + 2 * n * n * c + 2 * n * c * 2 * c
    figures = count_config(cfg)
    assert figures["modules"]["backbone"]["macs"] == n * 3 * 2 * 16 * 16 * c + 2 * block
    assert figures["modules"]["cls_head"]["macs"] == 2 * c


def test_layouts_of_clips():
    pytest.importorskip("mmaction")

    def example(layout, size=None, **frames):
        cfg = config(
            pipeline=[
                dict(type="SampleFrames", **frames),
                dict(type="ThreeCrop", crop_size=32),
                dict(type="FormatShape", input_format=layout),
            ]
        )
        cfg.default_scope = "mmaction"
        return make_example(cfg, size)

    clip = example("NCTHW", clip_len=8, num_clips=5)
    assert (clip.shape, clip.views) == ((3, 8, 32, 32), 15)
    segments = example("NCHW", clip_len=1, num_clips=8)
    assert (segments.shape, segments.views) == ((3, 8, 32, 32), 3)
    assert segments.inputs.shape == (1, 8, 3, 32, 32)
    sound = example("NCTF", (64, 80), clip_len=64, num_clips=10)
    assert (sound.shape, sound.inputs.shape) == ((1, 64, 80), (1, 1, 1, 64, 80))
    with pytest.raises(UserError, match="give --shape FRAMES BINS"):
        example("NCTF")
    with pytest.raises(UserError, match="makes 'NCTHW_Heatmap'"):
        example("NCTHW_Heatmap")
    assert torch.equal(clip.inputs, example("NCTHW", clip_len=8).inputs)


def test_moving_frames():
    example = make_example(config(pipeline=[dict(type="CenterCrop", crop_size=32)]), None)
    first, second, third = moving_frames(example, 3)
    assert torch.equal(first, example.inputs)
    for frame, left in ((second, 2), (third, 4)):
        changed = (frame != first).any(1)[0]
        expected = torch.zeros(32, 32, dtype=torch.bool)
        expected[12:20, left : left + 8] = True
        assert torch.equal(changed, expected)


def test_eventful_models_by_frame():
    path = Path(__file__).parents[2] / "configs" / "eventful" / "tiny"
    dense = load_config(str(path / "faster-rcnn_vitdet-tiny_vid-128_dense.py"), {})
    dense.default_hooks.eventful = dict(
        type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=40), attention="tokenwise"
    )
    figures = count_config(dense, depth=5, frames=3)
    frames, steady = figures["frames"], figures["frames"]["steady"]
    assert frames["length"] == 3
    for block in range(6):
        linear = steady["modules"][f"backbone.blocks.{block}.mlp.fc1"]
        assert linear["macs"] == 40 * 96 * 4 * 96
        linear = steady["modules"][f"backbone.blocks.{block}.attn.proj"]
        assert linear["macs"] == 40 * 96 * 96
    # The steady frame is the last; another one may touch some windows more or less
    mean = (frames["first"]["macs"] + 2 * steady["macs"]) / 3
    assert figures["macs"] == pytest.approx(mean, rel=5e-3)
    assert figures["flops"] == 2 * figures["macs"]
    whole = figures["dense"]
    assert whole["modules"]["backbone.blocks.0.mlp.fc1"]["macs"] == 256 * 96 * 4 * 96
    assert steady["macs"] < whole["macs"] <= frames["first"]["macs"]
    assert frames["first"]["left_out"] == 0 < steady["left_out"] < 1
    assert figures["saving"] == pytest.approx(1 - figures["macs"] / whole["macs"])


def test_an_eventful_pyramid_alone_is_counted_by_frame():
    path = Path(__file__).parents[2] / "configs" / "eventful" / "tiny"
    cfg = load_config(str(path / "faster-rcnn_vitdet-tiny_vid-128_top64_neck.py"), {})
    cfg.model.backbone = cfg.model.backbone.backbone
    figures = count_config(cfg, frames=2)
    first, steady = (figures["frames"][kind]["modules"] for kind in ("first", "steady"))
    dense = figures["dense"]["modules"]
    assert first == steady | {"neck": first["neck"]} == dense
    # 256 cells of 96 channels: 1 x 1 and 3 x 3 convolutions with 64, of all and of every fourth
    assert first["neck"]["macs"] == 64 * (96 + 9 * 64) * (256 + 64)
    assert steady["neck"]["macs"] < first["neck"]["macs"]


def test_tome_from_the_command_line(recognizer_config):
    pytest.importorskip("mmaction")
    cfg = load_config(
        str(recognizer_config),
        {"default_hooks.tome.type": "mmvitaccel.ToMeHook", "default_hooks.tome.r": 2},
    )
    figures = count_config(cfg)
    assert figures["dense"]["macs"] == count_config(load_config(str(recognizer_config), {}))["macs"]
    # 8 tokens of width 16: the MLP of block one sees 6, block two begins with 6 and ends with 4
    c, mlp = 16, 2 * 16 * 32
    blocks = sum(4 * n * c * c + 2 * n * n * c + (n - 2) * mlp for n in (8, 6))
    rest = 8 * 3 * 2 * 16 * 16 * c
    matching = figures["modules"]["backbone"]["macs"] - blocks - rest
    # scores between the two halves of the tokens, of keys as wide as one of two heads
    assert matching == (4 * 4 + 3 * 3) * 8
