"""The ViTDet configs build what was released, take its weights and its recipe, and run small."""

from __future__ import annotations

import copy
import functools
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmvitaccel.models.vitdet_weights import convert_vitdet_weights
from mmvitaccel.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "vitdet"
NAMES = ["faster-rcnn", "mask-rcnn", "cascade-mask-rcnn"]


@pytest.fixture(autouse=True, scope="module")
def read_metafiles_once():
    """A config with a base in another package reads all of its metafiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, "load", functools.cache(config_utils.load))
        yield


def load(name):
    return Config.fromfile(FOLDER / f"{name}_vitdet-b_lsj-100e_coco.py")


def build(cfg, device="cpu"):
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device(device):
        return MODELS.build(copy.deepcopy(cfg.model))


def released(name):
    """Names and shapes of detectron2's ViTDet-B detectors."""
    shapes = {"backbone.net.pos_embed": (1, 197, 768)}

    def layer(name, *shape, bias=True):
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def norm(name, channels):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)

    layer("backbone.net.patch_embed.proj", 768, 3, 16, 16)
    for i in range(12):
        block, side = f"backbone.net.blocks.{i}", 64 if i in (2, 5, 8, 11) else 14
        norm(f"{block}.norm1", 768)
        norm(f"{block}.norm2", 768)
        layer(f"{block}.attn.qkv", 2304, 768)
        layer(f"{block}.attn.proj", 768, 768)
        for axis in "hw":
            shapes[f"{block}.attn.rel_pos_{axis}"] = (2 * side - 1, 64)
        layer(f"{block}.mlp.fc1", 3072, 768)
        layer(f"{block}.mlp.fc2", 768, 3072)
    pyramid = {2: (4, 192), 3: (1, 384), 4: (0, 768), 5: (1, 768)}
    for level, (first, channels) in pyramid.items():
        path = f"backbone.simfp_{level}"
        layer(f"{path}.{first}", 256, channels, 1, 1, bias=False)
        layer(f"{path}.{first + 1}", 256, 256, 3, 3, bias=False)
        norm(f"{path}.{first}.norm", 256)
        norm(f"{path}.{first + 1}.norm", 256)
    for path, inputs, outputs in (("2.0", 768, 384), ("2.3", 384, 192), ("3.0", 768, 384)):
        shapes[f"backbone.simfp_{path}.weight"] = (inputs, outputs, 2, 2)
        shapes[f"backbone.simfp_{path}.bias"] = (outputs,)
    norm("backbone.simfp_2.1", 384)
    rpn = "proposal_generator.rpn_head"
    layer(f"{rpn}.conv.conv0", 256, 256, 3, 3)
    layer(f"{rpn}.conv.conv1", 256, 256, 3, 3)
    layer(f"{rpn}.objectness_logits", 3, 256, 1, 1)
    layer(f"{rpn}.anchor_deltas", 12, 256, 1, 1)
    for stage in ("0.", "1.", "2.") if name.startswith("cascade") else ("",):
        for i in range(1, 5):
            layer(f"roi_heads.box_head.{stage}conv{i}", 256, 256, 3, 3, bias=False)
            norm(f"roi_heads.box_head.{stage}conv{i}.norm", 256)
        layer(f"roi_heads.box_head.{stage}fc1", 1024, 256 * 49)
        layer(f"roi_heads.box_predictor.{stage}cls_score", 81, 1024)
        layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 if stage else 320, 1024)
    if "mask" in name:
        for i in range(1, 5):
            layer(f"roi_heads.mask_head.mask_fcn{i}", 256, 256, 3, 3, bias=False)
            norm(f"roi_heads.mask_head.mask_fcn{i}.norm", 256)
        shapes["roi_heads.mask_head.deconv.weight"] = (256, 256, 2, 2)
        shapes["roi_heads.mask_head.deconv.bias"] = (256,)
        layer("roi_heads.mask_head.predictor", 80, 256, 1, 1)
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_released_weights_load_strictly(name):
    weights = {key: torch.empty(shape, device="meta") for key, shape in released(name).items()}
    weights["pixel_mean"] = weights["pixel_std"] = torch.empty(3, 1, 1, device="meta")
    model = build(load(name), "meta")
    converted = convert_vitdet_weights(weights)
    assert {k: v.shape for k, v in converted.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_values_go_where_they_belong():
    names = released("mask-rcnn")
    converted = convert_vitdet_weights({n: torch.tensor(i) for i, n in enumerate(names)})
    of = {name: i for i, name in enumerate(names)}
    for ours, theirs in {
        "backbone.blocks.3.attn.rel_pos_h": "backbone.net.blocks.3.attn.rel_pos_h",
        "neck.simfp_2.4.norm.bias": "backbone.simfp_2.4.norm.bias",
        "rpn_head.rpn_conv.1.conv.bias": "proposal_generator.rpn_head.conv.conv1.bias",
        "rpn_head.rpn_reg.weight": "proposal_generator.rpn_head.anchor_deltas.weight",
        "roi_head.bbox_head.shared_convs.0.ln.bias": "roi_heads.box_head.conv1.norm.bias",
        "roi_head.bbox_head.shared_convs.3.conv.weight": "roi_heads.box_head.conv4.weight",
        "roi_head.bbox_head.shared_fcs.0.bias": "roi_heads.box_head.fc1.bias",
        "roi_head.bbox_head.fc_cls.bias": "roi_heads.box_predictor.cls_score.bias",
        "roi_head.mask_head.convs.2.conv.weight": "roi_heads.mask_head.mask_fcn3.weight",
        "roi_head.mask_head.conv_logits.bias": "roi_heads.mask_head.predictor.bias",
    }.items():
        assert converted[ours] == of[theirs], ours


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match=r"no ViTDet detector.*first names are conv1\.weight"):
        convert_vitdet_weights({"conv1.weight": torch.zeros(1)})
    weights = {n: torch.zeros(1) for n in released("mask-rcnn")}
    weights["roi_heads.keypoint_head.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"'roi_heads\.keypoint_head\.weight' is not a weight"):
        convert_vitdet_weights(weights)


def test_the_converter_reads_a_pickle_of_arrays(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(
        "vitdet", ROOT / "tools/model_converters/vitdet.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    weights = {name: np.full(1, i, np.float32) for i, name in enumerate(released("faster-rcnn"))}
    source, target = tmp_path / "model.pkl", tmp_path / "out" / "model.pth"
    source.write_bytes(pickle.dumps({"model": weights, "__author__": "someone"}))
    tool.main([str(source), str(target)])
    saved = torch.load(target, weights_only=True)["state_dict"]
    assert len(saved) == len(weights)
    assert saved["backbone.pos_embed"] == weights["backbone.net.pos_embed"][0]
    assert f"{len(weights)} tensors" in capsys.readouterr().out


def test_recipe_is_the_released_one():
    cfg = load("mask-rcnn")
    model = build(cfg, "meta")
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    settings = {id(g["params"][0]): (g["lr"] / 1e-4, g["weight_decay"]) for g in groups}
    norms = (m for m in model.modules() if isinstance(m, nn.LayerNorm))
    undecayed = {id(p) for norm in norms for p in norm.parameters()}
    undecayed.add(id(model.backbone.pos_embed))
    for name, parameter in model.named_parameters():
        decay = 0.0 if id(parameter) in undecayed else 0.1
        depth = 13
        if name.startswith("backbone.blocks."):
            depth = int(name.split(".")[2]) + 1
        elif name.startswith("backbone."):
            depth = 0
        assert settings[id(parameter)] == pytest.approx((0.7 ** (13 - depth), decay)), name
    assert cfg.train_dataloader.batch_size * 32 == cfg.auto_scale_lr.base_batch_size == 64
    rounds = cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.times
    assert rounds == 100 and cfg.param_scheduler[1].milestones == [22, 24]


@pytest.mark.parametrize("name", NAMES)
def test_small_siblings_train_and_detect(name):
    cfg = load(name)
    small = dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, window_size=3)
    cfg.model.backbone.update(small, window_block_indexes=(0,))
    cfg.model.neck.in_channels = 32
    cfg.model.data_preprocessor.pad_size_divisor = 64
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 10
    model = build(cfg)
    from mmdet.structures.mask import BitmapMasks  # the stack's gaps are closed by now

    sample = DetDataSample(metainfo=dict(
        img_shape=(48, 64), ori_shape=(48, 64), scale_factor=(1.0, 1.0), img_id=0
    ))  # fmt: skip
    truth = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]), labels=torch.tensor([3]))
    truth.masks = BitmapMasks(np.ones((1, 48, 64), np.uint8), 48, 64)
    sample.gt_instances = truth
    batch = dict(inputs=[torch.zeros(3, 48, 64)], data_samples=[sample])
    losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for n, p in model.named_parameters())
    with torch.no_grad():
        (result,) = model.eval().test_step(batch)
    assert ("masks" in result.pred_instances) == ("mask" in name)


def test_metafile_names_the_configs_and_their_sizes():
    listed = yaml.safe_load((FOLDER / "metafile.yml").read_text())["Models"]
    assert {ROOT / model["Config"] for model in listed} == set(FOLDER.glob("*.py"))
    for model in listed:
        name = model["Name"].split("_vitdet")[0]
        parameters = sum(p.numel() for p in build(load(name), "meta").parameters())
        assert model["Metadata"]["Parameters"] == parameters
