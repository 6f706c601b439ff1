"""mmcv's ConvModule and plain convolutions as steps that update stored maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from mmvitaccel.adapters.base import class_name, named_base
from mmvitaccel.core.eventful.maps.held import GroupNorm
from mmvitaccel.core.eventful.maps.steps import Mix, Spread

_CONV_MODULE = ("mmcv.cnn.bricks.conv_module.ConvModule",)
_CONVOLUTIONS = ("torch.nn.modules.conv.Conv2d", "mmcv.cnn.bricks.wrappers.Conv2d")
# Norms that process each pixel independently; others may average over the map.
_NORMS = (
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.SyncBatchNorm",
    "mmvitaccel.models.vitdet.simple_fpn.LN2d",
    "mmpretrain.models.utils.norm.LayerNorm2d",
)
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
    nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Identity,
)  # fmt: skip
_MMCV_ACTIVATIONS = tuple(
    f"mmcv.cnn.bricks.{name}"
    for name in ("swish.Swish", "hswish.HSwish", "hsigmoid.HSigmoid", "activation.Clamp")
)


def is_conv_module(module: nn.Module) -> bool:
    """Whether a module is mmcv's ConvModule."""
    return named_base(module, _CONV_MODULE) is not None


def conv_of(module: nn.Module) -> nn.Module:
    """Return the convolution of a ConvModule; a convolution is returned itself."""
    return module.conv if is_conv_module(module) else module


def after(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what a ConvModule applies to each pixel after its convolution.

    These are its norm, unless it averages over the map, and its activation.
    """
    if not is_conv_module(module):
        return _nothing
    steps = [module.norm] if module.with_norm and norm_over_map(module) is None else []
    steps += [module.activate] if module.with_activation else []

    def run(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return run


def norm_over_map(module: nn.Module) -> GroupNorm | None:
    """Return the norm of a ConvModule if it averages over the map (GroupNorm), otherwise None."""
    if not is_conv_module(module) or not module.with_norm or type(module.norm) is not nn.GroupNorm:
        return None
    norm = module.norm
    return GroupNorm(norm.num_groups, norm.weight, norm.bias, norm.eps)


def mix_of(module: nn.Module, border: int = 1, is_between: bool = False) -> Mix:
    """Return the step of a 3 x 3 convolution, or of a ConvModule with one; see :class:`Mix`."""
    conv = conv_of(module)
    norm = norm_over_map(module)
    return Mix(conv.weight, conv.bias, after(module), conv.stride[0], border, is_between, norm)


def spread_of(module: nn.Module) -> Spread:
    """Return the step of a 1 x 1 convolution or a transposed one without overlap.

    The module may be a ConvModule with such a convolution; see :class:`Spread`.
    """
    conv, finish = conv_of(module), after(module)
    pixels = conv.stride[0] if isinstance(conv, nn.ConvTranspose2d) else 1
    return Spread(lambda x: finish(conv(x)), pixels=pixels)


def bypassed_in(path: str, module: nn.Module) -> Iterable[str]:
    """Paths of the submodules that :func:`mix_of` (3 x 3) and :func:`spread_of` do not call."""
    if is_conv_module(module):
        yield path
    if norm_over_map(module) is not None:
        yield f"{path}.{module.norm_name}"
    if conv_of(module).kernel_size[0] == 3:
        yield f"{path}.conv" if is_conv_module(module) else path


def why_not(
    path: str, module: nn.Module, kernel: int = 3, stride: int = 1, held: bool = False
) -> str | None:
    """Reason why a convolution or ConvModule cannot be a step, or None.

    Args:
        path: Its path, for the reason.
        module: The convolution or ConvModule.
        kernel: Required side of the kernel.
        stride: Required stride.
        held: Whether the statistics of a GroupNorm are kept between frames.
    """
    conv = conv_of(module)
    if class_name(conv) not in _CONVOLUTIONS:
        return f"{path} is a {class_name(conv)}, not a plain convolution"
    sides = dict(kernel_size=kernel, stride=stride, padding=kernel // 2, dilation=1)
    expected = {name: (side, side) for name, side in sides.items()}
    for name, value in dict(expected, groups=1, padding_mode="zeros").items():
        if getattr(conv, name) != value:
            return f"{path} has {name}={getattr(conv, name)!r}; only {value!r} is supported"
    if not is_conv_module(module):
        return None
    if module.order[0] != "conv" or module.with_explicit_padding or module.with_spectral_norm:
        return f"{path} has a norm before its convolution, a padding layer or a spectral norm"
    return why_not_after(path, module, held)


def why_not_after(path: str, module: nn.Module, held: bool = False) -> str | None:
    """Reason why a ConvModule mixes pixels after its convolution, or None."""
    if module.with_norm and not (held and norm_over_map(module) is not None):
        reason = why_norm_is_not(f"{path}.{module.norm_name}", module.norm)
        if reason is not None:
            return reason
    if module.with_activation and tuple(module.order) != ("conv", "norm", "act"):
        return f"{path} has the order {tuple(module.order)}; only conv, norm, act is supported"
    if module.with_activation:
        activation = module.activate
        known = type(activation) in _ACTIVATIONS or named_base(activation, _MMCV_ACTIVATIONS)
        if not known:
            return f"{path} has the activation {class_name(activation)}, which may mix pixels"
    return None


def why_norm_is_not(path: str, norm: nn.Module) -> str | None:
    """Reason why a norm mixes pixels, or None."""
    if isinstance(norm, nn.GroupNorm):
        return f"{path} is a GroupNorm, which computes its statistics over the whole map"
    if named_base(norm, _NORMS) is None:
        return f"{path} is a {class_name(norm)}, which may average over the map"
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is None:
        return f"{path} is a BatchNorm without running statistics, which averages over the batch"
    return None


def _nothing(x: Tensor) -> Tensor:
    return x
