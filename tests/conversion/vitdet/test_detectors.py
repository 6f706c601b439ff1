"""ViTDet detectors in every layout, compared with R-CNNs written from detectron2's definition.

The models are of full size (ViT-B and the released heads); the image is small, so that windows are
padded and every table of relative positions is resized.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

SIZE = (48, 64)  # of the image, pixels; padded to 64 x 64
STRIDES = (4, 8, 16, 32, 64)
GLOBAL_BLOCKS = (2, 5, 8, 11)
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # red, green, blue


def released(kind="mask", classes=80):
    """Names and shapes of detectron2's ViTDet-B detectors: faster, mask or cascade."""
    shapes = {"backbone.net.pos_embed": (1, 197, 768)}

    def layer(name, *shape, bias=True):
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    layer("backbone.net.patch_embed.proj", 768, 3, 16, 16)
    for i in range(12):
        block, side = f"backbone.net.blocks.{i}", 64 if i in GLOBAL_BLOCKS else 14
        layer(f"{block}.norm1", 768)
        layer(f"{block}.attn.qkv", 2304, 768)
        layer(f"{block}.attn.proj", 768, 768)
        shapes[f"{block}.attn.rel_pos_h"] = (2 * side - 1, 64)
        shapes[f"{block}.attn.rel_pos_w"] = (2 * side - 1, 64)
        layer(f"{block}.norm2", 768)
        layer(f"{block}.mlp.fc1", 3072, 768)
        layer(f"{block}.mlp.fc2", 768, 3072)
    for path, inputs, outputs in (("2.0", 768, 384), ("2.3", 384, 192), ("3.0", 768, 384)):
        shapes[f"backbone.simfp_{path}.weight"] = (inputs, outputs, 2, 2)
        shapes[f"backbone.simfp_{path}.bias"] = (outputs,)
    layer("backbone.simfp_2.1", 384)
    for level, (first, channels) in {2: (4, 192), 3: (1, 384), 4: (0, 768), 5: (1, 768)}.items():
        path = f"backbone.simfp_{level}"
        layer(f"{path}.{first}", 256, channels, 1, 1, bias=False)
        layer(f"{path}.{first + 1}", 256, 256, 3, 3, bias=False)
        layer(f"{path}.{first}.norm", 256)
        layer(f"{path}.{first + 1}.norm", 256)
    rpn = "proposal_generator.rpn_head"
    layer(f"{rpn}.conv.conv0", 256, 256, 3, 3)
    layer(f"{rpn}.conv.conv1", 256, 256, 3, 3)
    layer(f"{rpn}.objectness_logits", 3, 256, 1, 1)
    layer(f"{rpn}.anchor_deltas", 12, 256, 1, 1)
    for stage in ("0.", "1.", "2.") if kind == "cascade" else ("",):
        for i in range(1, 5):
            layer(f"roi_heads.box_head.{stage}conv{i}", 256, 256, 3, 3, bias=False)
            layer(f"roi_heads.box_head.{stage}conv{i}.norm", 256)
        layer(f"roi_heads.box_head.{stage}fc1", 1024, 256 * 49)
        layer(f"roi_heads.box_predictor.{stage}cls_score", classes + 1, 1024)
        layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 if stage else 4 * classes, 1024)
    if kind != "faster":
        for i in range(1, 5):
            layer(f"roi_heads.mask_head.mask_fcn{i}", 256, 256, 3, 3, bias=False)
            layer(f"roi_heads.mask_head.mask_fcn{i}.norm", 256)
        shapes["roi_heads.mask_head.deconv.weight"] = (256, 256, 2, 2)
        shapes["roi_heads.mask_head.deconv.bias"] = (256,)
        layer("roi_heads.mask_head.predictor", classes, 256, 1, 1)
    return shapes


def peaky(weights):
    """Make some classes likely and box deltas small, as in a trained model."""
    for name, value in weights.items():
        if "cls_score.weight" in name:
            value *= 6
        elif "anchor_deltas" in name:
            value *= 0.3
    return weights


class Detectron2:
    """detectron2's ViTDet R-CNNs on their released names."""

    def __init__(self, weights, post_rpn=1000, eps=1e-6, resize="table"):
        self.w, self.post_rpn, self.eps, self.resize = weights, post_rpn, eps, resize

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def conv(self, name, x, **options):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **options)

    def up(self, name, x):
        return F.conv_transpose2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], stride=2)

    def map_norm(self, name, x):
        x = x.permute(0, 2, 3, 1)
        spread = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, True) + self.eps).sqrt()
        x = spread * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
        return x.permute(0, 3, 1, 2)

    def relative(self, table, size):
        """(size, size, D): the row of offset query - key + size - 1 of the table."""
        own = (len(table) + 1) // 2
        offsets = torch.arange(own)[:, None] - torch.arange(own)[None] + own - 1
        if self.resize == "pairs" and own != size:  # the Eventful Transformers paper's way
            rows = table[offsets].permute(2, 0, 1)[None]
            return F.interpolate(rows, (size, size), mode="bicubic")[0].permute(1, 2, 0)
        if own != size:
            table = F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
        offsets = torch.arange(size)[:, None] - torch.arange(size)[None] + size - 1
        return table[offsets]

    def attention(self, name, x):
        """(B, H, W, 768)."""
        batch, height, width, _ = x.shape
        qkv = self.linear(f"{name}.qkv", x).reshape(batch, height * width, 3, 12, 64)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * 12, height * width, 64)
        logits = (q / 8) @ k.transpose(1, 2)
        grid = q.reshape(batch * 12, height, width, 64)
        by_row = self.relative(self.w[f"{name}.rel_pos_h"], height)
        by_column = self.relative(self.w[f"{name}.rel_pos_w"], width)
        logits = logits.reshape(batch * 12, height, width, height, width)
        logits = logits + torch.einsum("bhwc,hkc->bhwk", grid, by_row)[..., None]
        logits = logits + torch.einsum("bhwc,wkc->bhwk", grid, by_column)[..., None, :]
        x = logits.flatten(3).flatten(1, 2).softmax(-1) @ v
        x = x.reshape(batch, 12, height, width, 64).permute(0, 2, 3, 1, 4)
        return self.linear(f"{name}.proj", x.flatten(3))

    def features(self, img):
        x = self.conv("backbone.net.patch_embed.proj", img, stride=16).permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        positions = self.w["backbone.net.pos_embed"][:, 1:].reshape(1, 14, 14, 768)
        positions = F.interpolate(positions.permute(0, 3, 1, 2), (height, width), mode="bicubic")
        x = x + positions.permute(0, 2, 3, 1)
        for i in range(12):
            name = f"backbone.net.blocks.{i}"
            h = F.layer_norm(x, (768,), *self.affine(f"{name}.norm1"), self.eps)
            if i not in GLOBAL_BLOCKS:  # one window holds the whole map
                h = F.pad(h, (0, 0, 0, 14 - width, 0, 14 - height))
            x = x + self.attention(f"{name}.attn", h)[:, :height, :width]
            h = F.layer_norm(x, (768,), *self.affine(f"{name}.norm2"), self.eps)
            x = x + self.linear(f"{name}.mlp.fc2", F.gelu(self.linear(f"{name}.mlp.fc1", h)))
        x = x.permute(0, 3, 1, 2)

        def out(x, path, first):
            for layer, padding in ((first, 0), (first + 1, 1)):
                name = f"backbone.{path}.{layer}"
                x = self.map_norm(f"{name}.norm", self.conv(name, x, padding=padding))
            return x

        fine = F.gelu(self.map_norm("backbone.simfp_2.1", self.up("backbone.simfp_2.0", x)))
        levels = [
            out(self.up("backbone.simfp_2.3", fine), "simfp_2", 4),
            out(self.up("backbone.simfp_3.0", x), "simfp_3", 1),
            out(x, "simfp_4", 0),
            out(F.max_pool2d(x, 2), "simfp_5", 1),
        ]
        return [*levels, levels[-1][:, :, ::2, ::2]]

    def affine(self, name):
        return self.w[f"{name}.weight"], self.w[f"{name}.bias"]

    @staticmethod
    def move(boxes, deltas, factors):
        """Apply deltas, divided by the box weights, to corners."""
        sides = boxes[:, 2:] - boxes[:, :2]
        centre = boxes[:, :2] + 0.5 * sides
        dx = deltas / torch.tensor(factors)
        centre = centre + dx[:, :2] * sides
        sides = dx[:, 2:].clamp(max=math.log(1000 / 16)).exp() * sides
        boxes = torch.cat((centre - 0.5 * sides, centre + 0.5 * sides), 1)
        return torch.minimum(boxes.clamp(min=0), torch.tensor([SIZE[1], SIZE[0]] * 2))

    def proposals(self, levels):
        boxes, scores, of_level = [], [], []
        for i, (x, stride) in enumerate(zip(levels, STRIDES)):
            for conv in ("conv0", "conv1"):
                x = self.conv(f"proposal_generator.rpn_head.conv.{conv}", x, padding=1).relu()
            logits = self.conv("proposal_generator.rpn_head.objectness_logits", x)
            deltas = self.conv("proposal_generator.rpn_head.anchor_deltas", x)
            logits = logits.permute(0, 2, 3, 1).flatten()
            deltas = deltas.unflatten(1, (3, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            cells = []
            for ratio in (0.5, 1.0, 2.0):
                width = math.sqrt((32 * 2**i) ** 2 / ratio)
                height = ratio * width
                cells.append([-width / 2, -height / 2, width / 2, height / 2])
            rows, columns = x.shape[2:]
            shifts = torch.tensor(
                [[c * stride, r * stride] * 2 for r in range(rows) for c in range(columns)]
            )
            anchors = (shifts[:, None] + torch.tensor(cells)[None]).reshape(-1, 4)
            logits, kept = logits.sort(descending=True)
            kept = kept[:1000]
            boxes.append(self.move(anchors[kept], deltas[kept], (1.0, 1.0, 1.0, 1.0)))
            scores.append(logits[:1000])
            of_level.append(torch.full((len(kept),), i))
        boxes, scores, of_level = torch.cat(boxes), torch.cat(scores), torch.cat(of_level)
        whole = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        boxes, scores, of_level = boxes[whole], scores[whole], of_level[whole]
        kept = batched_nms(boxes, scores, of_level, 0.7)[: self.post_rpn]
        return boxes[kept]

    @staticmethod
    def pool(levels, boxes, side):
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        level = (4 + torch.log2(area.sqrt() / 224 + 1e-8)).floor().clamp(2, 5).long() - 2
        out = torch.zeros(len(boxes), 256, side, side)
        for i in range(4):
            rois = F.pad(boxes[level == i], (1, 0))
            out[level == i] = roi_align(levels[i], rois, side, 1 / STRIDES[i], 0, aligned=True)
        return out

    def box_head(self, stage, levels, boxes):
        x = self.pool(levels, boxes, 7)
        for i in range(1, 5):
            name = f"roi_heads.box_head.{stage}conv{i}"
            x = self.map_norm(f"{name}.norm", self.conv(name, x, padding=1)).relu()
        x = self.linear(f"roi_heads.box_head.{stage}fc1", x.flatten(1)).relu()
        scores = self.linear(f"roi_heads.box_predictor.{stage}cls_score", x).softmax(-1)
        return scores, self.linear(f"roi_heads.box_predictor.{stage}bbox_pred", x)

    def detect(self, levels, boxes):
        """Boxes, scores and labels of the detections, best first."""
        if "roi_heads.box_head.0.fc1.weight" in self.w:
            means = 0
            for stage, factors in enumerate(((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))):
                scores, deltas = self.box_head(f"{stage}.", levels, boxes)
                means = means + scores / 3
                boxes = self.move(boxes, deltas, factors)
            scores = means
            boxes = boxes[:, None].expand(-1, scores.shape[1] - 1, 4)
        else:
            scores, deltas = self.box_head("", levels, boxes)
            classes = scores.shape[1] - 1
            deltas = deltas.unflatten(1, (classes, 4))
            boxes = torch.stack(
                [self.move(boxes, deltas[:, c], (10, 10, 5, 5)) for c in range(classes)], 1
            )
        scores = scores[:, :-1]  # the background is last
        index, labels = (scores > 0.05).nonzero(as_tuple=True)
        boxes, scores = boxes[index, labels], scores[index, labels]
        kept = batched_nms(boxes, scores, labels, 0.5)[:100]
        return boxes[kept], scores[kept], labels[kept]

    def masks(self, levels, boxes):
        """Logits of every class, 28 x 28 in each box."""
        x = self.pool(levels, boxes, 14)
        for i in range(1, 5):
            name = f"roi_heads.mask_head.mask_fcn{i}"
            x = self.map_norm(f"{name}.norm", self.conv(name, x, padding=1)).relu()
        x = self.up("roi_heads.mask_head.deconv", x).relu()
        return self.conv("roi_heads.mask_head.predictor", x)


@pytest.fixture
def picture():
    """One RGB image as detectron2 normalises and pads it, and the same in BGR for mmdet."""
    rgb = np.random.default_rng(0).integers(0, 256, (3, *SIZE), dtype=np.uint8)
    img = (torch.tensor(rgb).float() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    padded = F.pad(img, (0, 0, 0, 64 - SIZE[0]))[None]
    return padded, torch.tensor(rgb[::-1].copy())


def agree(model, reference, picture):
    """Compare every stage of a config's model with the reference, each on the same input."""
    img, bgr = picture
    sample = DetDataSample(
        metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0)
    )
    batch = dict(inputs=[bgr], data_samples=[sample])
    with torch.no_grad():
        inputs = model.data_preprocessor(batch, False)["inputs"]
        torch.testing.assert_close(inputs, img, rtol=0, atol=1e-5)
        levels = reference.features(img)
        found = model.extract_feat(inputs)
        for ours, theirs in zip(found, levels, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        proposals = reference.proposals(levels)
        (ours,) = model.rpn_head.predict(levels, [sample], rescale=False)
        torch.testing.assert_close(ours.bboxes, proposals, rtol=1e-5, atol=2e-3)
        proposals = proposals[:60]
        boxes, scores, labels = reference.detect(levels, proposals)
        assert len(boxes) > 5
        given = InstanceData(bboxes=proposals, scores=torch.ones(len(proposals)))
        given.labels = torch.zeros(len(proposals), dtype=torch.long)
        with_mask, model.roi_head.mask_head = getattr(model.roi_head, "mask_head", None), None
        (ours,) = model.roi_head.predict(levels, [given], [sample], rescale=False)
        assert torch.equal(ours.labels, labels)
        torch.testing.assert_close(ours.scores, scores, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.bboxes, boxes, rtol=1e-5, atol=2e-3)
        if with_mask is not None:
            model.roi_head.mask_head = with_mask
            rois = bbox2roi([boxes])
            stages = range(3) if isinstance(with_mask, torch.nn.ModuleList) else [None]
            for stage in stages:
                args = (levels, rois) if stage is None else (stage, levels, rois)
                masks = model.roi_head._mask_forward(*args)["mask_preds"]
                torch.testing.assert_close(
                    masks, reference.masks(levels, boxes), rtol=1e-3, atol=1e-3
                )


SMALL = {"model.data_preprocessor.pad_size_divisor": 64}


@pytest.mark.parametrize("kind", ["faster", "mask", "cascade"])
def test_detectron2(kind, fill, convert, build_from, picture):
    weights = peaky(fill(released(kind)))
    name = {"cascade": "cascade-mask"}.get(kind, kind)
    model = build_from(
        f"vitdet/{name}-rcnn_vitdet-b_lsj-100e_coco.py",
        convert(weights, "detectron2-vitdet"),
        **SMALL,
    )
    agree(model, Detectron2(weights), picture)


def as_renamed_by_the_paper(weights):
    """Rename detectron2's tensors as the paper's code does."""
    names = {
        "norm1.": "input_layer_norm.", "attn.qkv.": "qkv.", "attn.proj.": "projection.",
        "attn.rel_pos_h": "relative_position.y_embedding", "norm2.": "mlp_layer_norm.",
        "attn.rel_pos_w": "relative_position.x_embedding", "mlp.fc1.": "mlp_1.",
        "mlp.fc2.": "mlp_2.",
    }  # fmt: skip
    renamed = {}
    for name, value in weights.items():
        if name == "backbone.net.pos_embed":
            name, value = "backbone.position_encoding.encoding", value[:, 1:]
        name = name.replace("backbone.net.patch_embed.proj", "embedding.conv")
        name = name.replace("backbone.net.", "backbone.")
        for theirs, papers in names.items():
            if name.startswith("backbone.blocks."):
                name = name.replace(f".{theirs}", f".{papers}")
        if name.startswith("backbone.simfp_"):
            _, path, layer, rest = name.split(".", 3)
            level = int(path[-1]) - 2
            first = (4, 1, 0, 1)[level]
            if int(layer) >= first:  # a norm is a layer of its own there
                offset = 2 * (int(layer) - first) + rest.startswith("norm.")
                layer, rest = first + offset, rest.removeprefix("norm.")
            name = f"pyramid.stages.{level}.{layer}.{rest}"
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(("layout", "size"), [("trained", 1024), ("renamed", 672)])
def test_the_papers_vid_detector(layout, size, fill, convert, build_from, picture):
    weights = peaky(fill(released("faster", classes=30)))
    held = as_renamed_by_the_paper(weights) if layout == "renamed" else weights
    converted = convert(held, "eventful-vitdet-vid")
    model = build_from(f"eventful/faster-rcnn_vitdet-b_vid-{size}_dense.py", converted, **SMALL)
    if layout == "renamed":
        assert not converted["backbone.pos_embed"][:, 0].any()
    resize = "pairs" if size == 672 else "table"
    agree(model, Detectron2(weights, post_rpn=300, resize=resize), picture)


def as_named_by_mmdet(weights):
    """The names of mmdet's projects/ViTDet: another pyramid, norms named after their class."""
    renamed = {}
    for name, value in weights.items():
        name = name.replace("backbone.net.", "backbone.")
        if name.startswith("backbone.simfp_"):
            _, path, layer, rest = name.split(".", 3)
            level = int(path[-1]) - 2
            after = int(layer) - (4, 1, 0, 1)[level]
            if after < 0:
                name = f"neck.fpn{level + 1}.{layer}.{rest}"
            else:
                part = rest.replace("norm.", "norm_layer.")
                part = part if part.startswith("norm") else f"conv.{part}"
                name = f"neck.{('lateral', 'fpn')[after]}_convs.{level}.{part}"
        for theirs, mmdets in (
            ("proposal_generator.rpn_head.conv.conv", "rpn_head.rpn_conv."),
            ("proposal_generator.rpn_head.objectness_logits", "rpn_head.rpn_cls"),
            ("proposal_generator.rpn_head.anchor_deltas", "rpn_head.rpn_reg"),
            ("roi_heads.box_predictor.cls_score", "roi_head.bbox_head.fc_cls"),
            ("roi_heads.box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg"),
            ("roi_heads.box_head.fc1", "roi_head.bbox_head.shared_fcs.0"),
            ("roi_heads.mask_head.deconv", "roi_head.mask_head.upsample"),
            ("roi_heads.mask_head.predictor", "roi_head.mask_head.conv_logits"),
            *((f"roi_heads.box_head.conv{i + 1}", f"roi_head.bbox_head.shared_convs.{i}")
              for i in range(4)),
            *((f"roi_heads.mask_head.mask_fcn{i + 1}", f"roi_head.mask_head.convs.{i}")
              for i in range(4)),
        ):  # fmt: skip
            if name.startswith(theirs):
                head, _, kind = (mmdets + name[len(theirs) :]).rpartition(".")
                if "convs." in head:
                    head = head.removesuffix(".norm") + (
                        ".norm_layer" if head.endswith(".norm") else ".conv"
                    )
                name = f"{head}.conv.{kind}" if "rpn_conv" in head else f"{head}.{kind}"
                break
        renamed[name] = value
    return renamed


def test_mmdets_own_vitdet(fill, convert, build_from, picture):
    weights = peaky(fill(released("mask")))
    converted = convert(as_named_by_mmdet(weights), "mmdet-vitdet")
    eps = 1e-5  # of every norm there, which the report says
    model = build_from(
        "vitdet/mask-rcnn_vitdet-b_lsj-100e_coco.py",
        converted,
        **SMALL,
        **{
            f"model.{part}": eps
            for part in (
                "backbone.norm_eps",
                "neck.norm_eps",
                "roi_head.bbox_head.norm_cfg.eps",
                "roi_head.mask_head.norm_cfg.eps",
            )
        },
    )
    # Too little to be seen in the outputs above rounding: looked at by itself.
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {eps}
    agree(model, Detectron2(weights, eps=eps), picture)


def test_configs_prepare_images_as_detectron2():
    root = Path(__file__).parents[3] / "configs"
    for path in (
        "vitdet/mask-rcnn_vitdet-b_lsj-100e_coco.py",
        "vitdet/cascade-mask-rcnn_vitdet-b_lsj-100e_coco.py",
        "eventful/faster-rcnn_vitdet-b_vid-1024_dense.py",
    ):
        pixels = Config.fromfile(root / path).model.data_preprocessor
        assert (pixels.mean, pixels.std, pixels.bgr_to_rgb) == (MEAN, STD, True)
        assert pixels.pad_size_divisor == 1024
