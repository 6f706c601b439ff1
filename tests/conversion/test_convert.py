"""Conversion of files: every format, damaged and unknown files, and the result."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvitaccel.conversion.catalogue import LAYOUTS
from mmvitaccel.conversion.convert import convert_file, find_layout
from mmvitaccel.conversion.vitdet.detectron2_rules import MEAN, STD
from mmvitaccel.models.weights.wrapped import Choice
from mmvitaccel.version import __version__

DIM, BLOCKS = 16, 2


def image_vit(dim=DIM, blocks=BLOCKS):
    """Return a small plain transformer's weights by MAE's names."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 17, dim)}
    layers = {"patch_embed.proj": (dim, 3, 4, 4), "norm": (dim,)}
    for i in range(blocks):
        block = f"blocks.{i}"
        layers |= {f"{block}.norm1": (dim,), f"{block}.norm2": (dim,)}
        layers |= {f"{block}.attn.qkv": (3 * dim, dim), f"{block}.attn.proj": (dim, dim)}
        layers |= {f"{block}.mlp.fc1": (4 * dim, dim), f"{block}.mlp.fc2": (dim, 4 * dim)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def as_pickle(weights, path):
    arrays = {name: value.numpy() for name, value in weights.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))


def as_safetensors(weights, path):
    pytest.importorskip("safetensors.torch").save_file(weights, path)


def as_wrapped(key):
    return lambda weights, path: torch.save({key: weights, "epoch": 3}, path)


def as_distributed(weights, path):
    torch.save({"model": {f"module.{name}": value for name, value in weights.items()}}, path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (torch.save, "plain.pth"),
        (as_wrapped("model"), "model.pth"),
        (as_wrapped("state_dict"), "state_dict.pth"),
        (as_wrapped("model_state"), "model_state.pyth"),
        (as_distributed, "distributed.pth"),
        (as_pickle, "arrays.pkl"),
        (as_safetensors, "plain.safetensors"),
    ],
)
def test_every_kind_of_file(write, name, tmp_path):
    weights = image_vit()
    source, target = tmp_path / name, tmp_path / "new" / "out.pth"
    write(weights, source)
    report = convert_file(source, target)
    saved = torch.load(target, weights_only=True)
    assert saved.keys() == {"state_dict", "meta"}
    assert saved["meta"]["conversion"] == dict(
        format="mae-vit",
        source=name,
        source_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        mmvitaccel_version=__version__,
        settings={},
    )
    unused = {"cls_token", "norm.weight", "norm.bias"}
    expected = {f"backbone.{n}": v for n, v in weights.items() if n not in unused}
    assert saved["state_dict"].keys() == expected.keys()
    assert all(torch.equal(saved["state_dict"][n], v) for n, v in expected.items())
    assert {entry.name for entry in report.of_kind("left over")} == unused
    assert not list(target.parent.glob("*.part"))


def test_the_report_lists_every_tensor(tmp_path):
    weights = image_vit() | {"student.extra": torch.ones(1), "patch_embed.scale": torch.ones(1)}
    torch.save(weights, tmp_path / "in.pth")
    lines = list(convert_file(tmp_path / "in.pth", tmp_path / "out.pth", "vit-as-vivit").lines())
    assert lines[0].startswith("layout: vit-as-vivit (a pre-trained image transformer")
    assert len(lines) == len(weights) + 2
    held = "\n".join(lines)
    assert "renamed    cls_token -> backbone.spatial.cls_token" in held
    assert (
        "resized    patch_embed.proj.weight -> backbone.patch_embed.weight "
        "(middle one of 2 frames; the others are zero)" in held
    )
    assert "left over  patch_embed.scale (unknown in this layout)" in held
    assert re.fullmatch(r"0 used, \d+ renamed, 1 resized, 2 left over", lines[-1])


def test_prefix(tmp_path):
    held = {f"teacher.{name}": value for name, value in image_vit().items()}
    torch.save(held | {"student.x": torch.ones(1)}, tmp_path / "in.pth")
    report = convert_file(
        tmp_path / "in.pth", tmp_path / "out.pth", choice=Choice(prefix="teacher.")
    )
    assert report.layout == "mae-vit"
    assert str(report.entries[-1]) == "left over  student.x (outside the prefix)"
    with pytest.raises(ValueError, match=r"no name in it begins with 'tutor\.' \(the first is 't"):
        convert_file(tmp_path / "in.pth", tmp_path / "out.pth", choice=Choice(prefix="tutor."))


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').write('ran')",)


def hostile_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def hostile_old_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (hostile_pickle, "weights.pkl"),
        (hostile_pickle, "weights.pth"),
        (torch.save, "weights.pth"),
        (torch.save, "weights.pyth"),
        (torch.save, "weights.pkl"),
        (hostile_old_format, "weights.pth"),
        (hostile_pickle, "weights.safetensors"),
    ],
)
def test_hostile_files_do_not_run(write, name, tmp_path):
    source, marker, target = tmp_path / name, tmp_path / "marker", tmp_path / "out.pth"
    write({"model": {"w": np.zeros(2)}, "extra": Hostile(marker)}, source)
    with pytest.raises(ValueError, match=r"file asks for builtins\.exec"):
        convert_file(source, target)
    assert not marker.exists() and not target.exists()
    # The file would have run.
    torch.load(source, weights_only=False) if write is not hostile_pickle else pickle.loads(
        source.read_bytes()
    )
    assert marker.exists()


def cut(path):
    torch.save(image_vit(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def bad(key, value):
    def write(path):
        weights = image_vit()
        weights[key] = value(weights[key]) if callable(value) else value
        torch.save({n: v for n, v in weights.items() if v is not None}, path)

    return write


def with_nan(value):
    value[0, 0] = float("nan")
    return value


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda p: p.write_bytes(b""), "the checkpoint is empty"),
        (cut, "is cut short, damaged"),
        (lambda p: p.write_text("accuracy 0.9"), "not a checkpoint, it begins with b'accuracy"),
        (lambda p: p.write_text("<!DOCTYPE html>"), "not a checkpoint but a web page"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS pointer"),
        (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(99)), "a gzip archive; unpack it"),
        (lambda p: torch.save([1], p), "it contains no state dict but a list"),
        (lambda p: torch.save({"model": {}}, p), "it contains no state dict but a dict|'model'"),
        (lambda p: torch.save({"lr": 0.1}, p), "'lr' is a float"),
        (
            lambda p: torch.save({"fc.weight": torch.ones(1)}, p),
            "'fc.weight', ...\\) match no known layout",
        ),
        (
            bad("blocks.1.mlp.fc2.bias", None),
            "1 of the 27 tensors of mae-vit are missing, first 'backbone.blocks.1.m",
        ),
        (
            bad("blocks.0.norm2.bias", torch.ones(3)),
            r"'backbone.blocks.0.norm2.bias' has shape \(3,\), but mae-vit needs \(16,\)",
        ),
        (
            bad("blocks.0.attn.proj.weight", with_nan),
            "1 of its tensors contain NaN or infinity, first",
        ),
        (
            lambda p: torch.save(image_vit(dim=768, blocks=1), p),
            "132 of the 147 tensors of mae-vit are missing, first 'backbone.blocks.1.norm1.weight'",
        ),
        (
            lambda p: torch.save({"meta": {"mmdet_version": "1.2.0"}, "state_dict": {}}, p),
            "written by mmdet 1.2.0, whose classes begin with the background",
        ),
        (
            lambda p: p.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.ones(1)}})),
            "Caffe2's Detectron, whose classes begin with the background",
        ),
    ],
)
def test_bad_input_is_said_in_one_sentence(write, sentence, tmp_path):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    write(source)
    with pytest.raises(ValueError, match=rf"in\.pth: .*({sentence})") as error:
        convert_file(source, target)
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_wrong_requests(tmp_path):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(image_vit(), source)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: there is no such"):
        convert_file(tmp_path / "nowhere.pth", target)
    with pytest.raises(ValueError, match="--format vit is not known; known are efficientvit-imag"):
        convert_file(source, target, "vit")
    with pytest.raises(ValueError, match="none of its names belongs to TAdaConv's"):
        convert_file(source, target, "tadaconv-vivit")
    with pytest.raises(ValueError, match="give another name"):
        convert_file(source, source)
    convert_file(source, target)
    with pytest.raises(ValueError, match="it is already converted, from mae-vit"):
        convert_file(target, tmp_path / "again.pth")


def test_one_place_for_two_tensors(convert):
    weights = small_detector(30)
    weights["backbone.position_encoding.encoding"] = weights["backbone.net.pos_embed"][:, 1:]
    with pytest.raises(ValueError, match=r"'backbone\.net\.pos_embed' and 'backbone\.position_enc"):
        convert(weights, "eventful-vitdet-vid")


def test_each_name_is_of_one_layout():
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
    assert [layout.name for layout in LAYOUTS if layout.recognise(image_vit())] == ["mae-vit"]


def small_detector(classes=3):
    """detectron2's Faster R-CNN on a small ViTDet."""
    weights = {
        f"backbone.net.{name}": value
        for name, value in image_vit().items()
        if name not in ("cls_token", "norm.weight", "norm.bias")
    }
    for i in range(BLOCKS):
        for axis in "hw":
            weights[f"backbone.net.blocks.{i}.attn.rel_pos_{axis}"] = torch.randn(7, 8)
    shapes, out = {}, 4
    for path, inputs, outputs in (("2.0", 16, 8), ("2.3", 8, 4), ("3.0", 16, 8)):
        shapes[f"backbone.simfp_{path}.weight"] = (inputs, outputs, 2, 2)
        shapes[f"backbone.simfp_{path}.bias"] = (outputs,)
    norms = {"backbone.simfp_2.1": 8}
    for level, (first, inputs) in {2: (4, 4), 3: (1, 8), 4: (0, 16), 5: (1, 16)}.items():
        path = f"backbone.simfp_{level}"
        shapes[f"{path}.{first}.weight"] = (out, inputs, 1, 1)
        shapes[f"{path}.{first + 1}.weight"] = (out, out, 3, 3)
        norms |= {f"{path}.{first}.norm": out, f"{path}.{first + 1}.norm": out}
    rpn, roi = "proposal_generator.rpn_head", "roi_heads"
    layers = {
        f"{rpn}.conv.conv0": (out, out, 3, 3), f"{rpn}.conv.conv1": (out, out, 3, 3),
        f"{rpn}.objectness_logits": (3, out, 1, 1), f"{rpn}.anchor_deltas": (12, out, 1, 1),
        f"{roi}.box_head.fc1": (8, 49 * out), f"{roi}.box_predictor.cls_score": (classes + 1, 8),
        f"{roi}.box_predictor.bbox_pred": (4 * classes, 8),
    }  # fmt: skip
    for i in range(1, 5):
        shapes[f"{roi}.box_head.conv{i}.weight"] = (out, out, 3, 3)
        norms[f"{roi}.box_head.conv{i}.norm"] = out
    layers |= {name: (channels,) for name, channels in norms.items()}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return weights | {name: torch.randn(shape) for name, shape in shapes.items()}


def converted(weights, convert):
    return convert(weights, "detectron2-vitdet")["backbone.patch_embed.proj.weight"]


def test_pixels_of_older_detectron2_models(convert):
    """The embedding is the same before and after, each with its own normalisation of the pixels."""
    weights = small_detector()
    patch = weights["backbone.net.patch_embed.proj.weight"]
    rgb = torch.rand(1, 3, 4, 4) * 255
    ours = (rgb - MEAN[:, None, None]) / STD[:, None, None]
    assert torch.equal(converted(weights, convert), patch)
    for order, std in (([0, 1, 2], STD), ([2, 1, 0], STD.flip(0)), ([2, 1, 0], torch.ones(3))):
        weights["pixel_mean"] = MEAN[order].reshape(3, 1, 1)
        weights["pixel_std"] = std.reshape(3, 1, 1)
        theirs = (rgb[:, order] - weights["pixel_mean"]) / weights["pixel_std"]
        expected = torch.nn.functional.conv2d(theirs, patch)
        found = torch.nn.functional.conv2d(ours, converted(weights, convert))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    weights["pixel_mean"] = torch.full((3, 1, 1), 127.5)
    with pytest.raises(ValueError, match=r"normalised with mean \[127\.5, 127\.5, 127\.5\]"):
        converted(weights, convert)


def test_anchors_in_the_file(convert):
    weights = small_detector()
    name = "proposal_generator.anchor_generator.cell_anchors.0"
    half = torch.tensor([[45.2548, 22.6274], [32, 32], [22.6274, 45.2548]]) / 2
    weights[name] = torch.cat((-half, half), 1)
    convert(weights, "detectron2-vitdet")
    weights[name] = weights[name] + 2  # an offset of half a cell
    with pytest.raises(ValueError, match=r"the anchors of level 0 are \[\[-20\.6"):
        convert(weights, "detectron2-vitdet")


def test_heads_that_do_not_agree(convert):
    weights = small_detector()
    for name in ("weight", "bias"):
        name = f"roi_heads.box_predictor.bbox_pred.{name}"
        weights[name] = weights[name][:8]
    with pytest.raises(ValueError, match=r"has 4 scores and 8 box outputs; 3 classes and the back"):
        convert(weights, "detectron2-vitdet")


def test_classes_are_named_where_they_are_known(tmp_path):
    source, target = Path(tmp_path, "in.pth"), Path(tmp_path, "out.pth")
    for classes, name, first in (
        (80, "detectron2-vitdet", "person"),
        (30, "eventful-vitdet-vid", "air"),
    ):
        torch.save({"model": small_detector(classes)}, source)
        assert find_layout(small_detector(classes), "in.pth").name == name
        report = convert_file(source, target)
        assert report.settings == {"num_classes": classes, "reg_class_agnostic": False}
        meta = torch.load(target, weights_only=True)["meta"]
        assert len(meta["dataset_meta"]["classes"]) == classes
        assert meta["dataset_meta"]["classes"][0].startswith(first)
