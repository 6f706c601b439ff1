"""Feature pyramid of the EfficientViT detectors, with levels finer than the backbone's first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitaccel.arguments import init_config, whole_number, whole_numbers
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class EfficientViTFPN(BaseModule):
    """FPN (Lin et al., CVPR 2017) with transposed convolutions for levels below stride 16.

    With backbone strides 16, 32 and 64, one transposed convolution and five outputs, the levels
    are at strides 8, 16, 32, 64 and 128. The finer ones come from the merged lateral of the
    first backbone level, the coarser ones from subsampling the last output.

    Args:
        in_channels: Channels of each input level.
        out_channels: Channels of every output level.
        num_outs: Number of output levels.
        num_extra_trans_convs: Number of levels before the backbone's first, each at half the
            stride of the next.
        init_cfg: Initialization config of mmengine; by default, Xavier for the convolutions.

    Raises:
        ValueError: ``num_outs`` is less than the number of levels, or an argument is out of range.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        num_extra_trans_convs: int = 0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        owner = "EfficientViTFPN"
        init_cfg = init_config(owner, init_cfg)
        super().__init__(init_cfg or dict(type="Xavier", layer="Conv2d", distribution="uniform"))
        self.in_channels = whole_numbers(owner, "in_channels", in_channels, least=1)
        out_channels = whole_number(owner, "out_channels", out_channels, least=1)
        self.num_outs = num_outs = whole_number(owner, "num_outs", num_outs, least=1)
        num_extra_trans_convs = whole_number(
            owner, "num_extra_trans_convs", num_extra_trans_convs, least=0
        )
        levels = len(self.in_channels) + num_extra_trans_convs
        if num_outs < levels:
            raise ValueError(
                f"EfficientViTFPN: num_outs={num_outs} is less than the {len(self.in_channels)} "
                f"levels of in_channels and num_extra_trans_convs={num_extra_trans_convs}; "
                f"set num_outs >= {levels}."
            )

        def smooth() -> ConvModule:
            return ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None)

        def double() -> ConvModule:
            return ConvModule(
                out_channels, out_channels, 2, stride=2, conv_cfg=dict(type="deconv"), act_cfg=None
            )

        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None) for channels in self.in_channels
        )
        self.fpn_convs = nn.ModuleList(smooth() for _ in self.in_channels)
        self.extra_trans_convs = nn.ModuleList(double() for _ in range(num_extra_trans_convs))
        self.extra_fpn_convs = nn.ModuleList(smooth() for _ in range(num_extra_trans_convs))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Merge the levels from coarse to fine and add finer and coarser ones.

        Args:
            inputs: (B, ``in_channels[i]``, H_i, W_i), fine to coarse.

        Returns:
            ``num_outs`` maps (B, ``out_channels``, ., .), fine to coarse.

        Raises:
            ValueError: The channels of the inputs differ from ``in_channels``.
        """
        channels = tuple(x.shape[1] for x in inputs)
        # Comparing traced sizes would only warn; the convolutions still check them
        if not torch.jit.is_tracing() and channels != self.in_channels:
            raise ValueError(
                f"EfficientViTFPN: the inputs have {channels} channels; set in_channels to these "
                f"instead of {self.in_channels}, or the backbone's out_indices."
            )
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size, mode="nearest")
        finer = [laterals[0]]
        for conv in self.extra_trans_convs:
            finer.insert(0, conv(finer[0]))
        # In released weights extra_trans_convs go from coarse to fine, but
        # extra_fpn_convs, like fpn_convs, from fine to coarse
        outs = [conv(x) for conv, x in zip(self.extra_fpn_convs, finer)]
        outs += [conv(x) for conv, x in zip(self.fpn_convs, laterals)]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
