"""A one-stage detector as one graph, from pixels to boxes, without branches in Python."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from mmvitaccel.errors import UserError
from mmvitaccel.registry import type_name


class DetectionGraph(nn.Module):
    """``detector.predict`` on batches, with outputs of fixed layout.

    Boxes are clipped to the input including padding; mmdet clips them to each image without
    padding. They are not scaled back to the original image.

    Args:
        detector: A one-stage detector of mmdet with anchors and sigmoid scores, such as RetinaNet.
        suppress: Whether overlapping boxes are removed in the graph.

    Raises:
        UserError: The detector is of another kind.
    """

    def __init__(self, detector: nn.Module, suppress: bool = True) -> None:
        super().__init__()
        check_detector(detector)
        self.detector = detector
        self.suppress = suppress
        test_cfg = detector.bbox_head.test_cfg
        self.nms_pre = test_cfg.get("nms_pre", -1)
        self.score_thr = test_cfg.get("score_thr", 0.0)
        self.min_size = test_cfg.get("min_bbox_size", -1)
        self.iou_thr = test_cfg.get("nms", {}).get("iou_threshold", 0.5)
        self.max_per_img = test_cfg.get("max_per_img", 100)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            images: (B, C, H, W), normalised as the detector's data preprocessor does.

        Returns:
            ``dets`` (B, K, 5), boxes (x1, y1, x2, y2) in pixels of the input and their score, and
            ``labels`` (B, K) int64. With suppression: the K = ``max_per_img`` best boxes in
            descending order, padded with score 0 and label -1. Without: all candidates, at most
            ``nms_pre`` per level; those at or below the score threshold have score 0.
        """
        cls_scores, deltas = self.detector.bbox_head(self.detector.extract_feat(images))
        levels = [
            self._candidates(level, scores, delta)
            for level, (scores, delta) in enumerate(zip(cls_scores, deltas))
        ]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels))
        boxes = clip(boxes, images)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (scores > self.score_thr) & (sides > self.min_size).all(-1)
        scores = scores * valid
        if self.suppress:
            boxes, scores, labels = self._suppressed(boxes, scores, labels)
        return torch.cat([boxes, scores[..., None]], -1), labels

    def _candidates(self, level: int, scores: Tensor, deltas: Tensor) -> tuple[Tensor, ...]:
        """The best pairs of anchor and class of a level: (B, k, 4), (B, k) and (B, k) labels."""
        head = self.detector.bbox_head
        batch, size = scores.shape[0], scores.shape[2:]
        anchors = head.prior_generator.single_level_grid_priors(
            size, level, dtype=scores.dtype, device=scores.device
        )
        classes = head.cls_out_channels
        # B, A * classes, h, w -> B, h * w * A * classes
        scores = scores.permute(0, 2, 3, 1).reshape(batch, -1).sigmoid()
        deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
        if self.nms_pre > 0:
            # A small map has fewer pairs than requested; k is a constant in the graph
            scores = F.pad(scores, (0, self.nms_pre))
            scores, pairs = scores.topk(self.nms_pre, dim=1)
            pairs = pairs * (scores > 0)
        else:
            pairs = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        index = torch.div(pairs, classes, rounding_mode="floor")
        deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = head.bbox_coder.decode(anchors[index].reshape(-1, 4), deltas.reshape(-1, 4))
        return boxes.reshape(batch, -1, 4), scores, pairs - index * classes

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The best boxes of each image after non-maximum suppression per class."""
        # Like mmcv, classes are moved apart, so that one suppression handles all of them
        apart = boxes + (labels * (boxes.amax((1, 2), keepdim=True)[..., 0] + 1))[..., None]
        chosen = NonMaxSuppression.apply(
            apart, scores[:, None], self.max_per_img, self.iou_thr, self.score_thr
        )
        image, box = chosen[:, 0], chosen[:, 2]
        ones = torch.ones_like(box, dtype=scores.dtype)
        kept = torch.zeros_like(scores).index_put((image, box), ones)
        # Padded, so that there are always enough for the output
        scores = F.pad(scores * kept, (0, self.max_per_img))
        boxes = F.pad(boxes, (0, 0, 0, self.max_per_img))
        labels = F.pad(labels, (0, self.max_per_img))
        scores, order = scores.topk(self.max_per_img, dim=1)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) * (scores > 0)[..., None]
        labels = torch.where(scores > 0, labels.gather(1, order), -1)
        return boxes, scores, labels


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator of this name, and its computation in torch."""

    @staticmethod
    def forward(
        ctx: Any, boxes: Tensor, scores: Tensor, most: int, iou_thr: float, score_thr: float
    ) -> Tensor:
        """Choose boxes.

        Args:
            ctx: Context of autograd.
            boxes: (B, N, 4).
            scores: (B, 1, N).
            most: Largest number of boxes per image.
            iou_thr: Boxes that overlap a better one by more are removed.
            score_thr: Boxes with this score or less are removed.

        Returns:
            (chosen, 3) int64: image, 0, box; best first for each image.
        """
        if torch.onnx.is_in_onnx_export():
            # Otherwise this computation would be recorded in addition to the operator
            return torch.zeros(1, 3, dtype=torch.long)
        chosen = []
        for image, (own, score) in enumerate(zip(boxes, scores[:, 0])):
            able = (score > score_thr).nonzero()[:, 0]
            kept = able[nms(own[able], score[able], iou_thr)[:most]]
            zero = torch.zeros_like(kept)
            chosen.append(torch.stack([zero + image, zero, kept], dim=1))
        return torch.cat(chosen)

    @staticmethod
    def symbolic(
        g: Any, boxes: Any, scores: Any, most: int, iou_thr: float, score_thr: float
    ) -> Any:
        """The operator in a graph."""
        limits = [torch.tensor([most]), torch.tensor([iou_thr]), torch.tensor([score_thr])]
        constants = [g.op("Constant", value_t=limit) for limit in limits]
        return g.op("NonMaxSuppression", boxes, scores, *constants)


def clip(boxes: Tensor, images: Tensor) -> Tensor:
    """Clip boxes (B, N, 4) to images (B, C, H, W)."""
    height, width = (torch.as_tensor(n, device=boxes.device) for n in images.shape[2:])
    most = torch.stack([width, height, width, height]).to(boxes.dtype)
    return torch.minimum(boxes, most).clamp(min=0)


def check_detector(detector: nn.Module) -> None:
    """Refuse unsupported detectors.

    Raises:
        UserError: It has no head with anchors and sigmoids, or another suppression.
    """
    # Imported here, because the export of backbones does not need mmdet
    from mmdet.models.dense_heads import RetinaHead

    name, head = type(detector).__name__, getattr(detector, "bbox_head", None)
    if not isinstance(head, RetinaHead) or not head.use_sigmoid_cls:
        raise UserError(
            f"model: a whole {name} with {_named(head)} cannot be exported, only detectors "
            "with a RetinaHead and sigmoid scores; give --part backbone."
        )
    kind = type_name(head.test_cfg.get("nms") or {}) or "nms"
    if kind != "nms":
        raise UserError(
            f"model.test_cfg.nms.type is {kind!r}, which ONNX does not have; set it to 'nms' or "
            "give --no-nms."
        )


def _named(head: nn.Module | None) -> str:
    return "no bbox_head" if head is None else type(head).__name__
