"""Records that describe a host to the methods, one per family.

A host is a vision transformer of another package. Its adapter describes where its blocks are and
how to compute the steps of a block. Every function receives the host's own module and calls its
submodules, so no code of the host is copied and all models of a family share a record.

Shapes: B batch (of images, windows or frames, as in the block's input), N tokens, M any subset of
    them, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

Grid = tuple  # (H, W) in tokens, or (T, H, W) for a clip
Normed = Callable[[], Tensor]  # computes norm1's output when called


class BlockInput(NamedTuple):
    """Arguments of one call of a block, in the form used by methods.

    Attributes:
        x: Tokens (B, N, C), in the host's order.
        rope: Rotary table (1 or B, 1 or H, N, 2 * D), sines followed by cosines, with the identity
            (0 and 1) for prefix tokens, or None.
        grid_size: (H, W) of the tokens after the prefix, or None if unknown.
        extra: Data for :attr:`BlockSpec.leave` to restore the host's layout.
        sequences: Number of sequences of equal length that are concatenated in ``x``, each with its
            prefix. More than one is only supported in a block that keeps the grid.
        apart: Whether attention is restricted to each sequence.
    """

    x: Tensor
    rope: Tensor | None = None
    grid_size: Grid | None = None
    extra: Any = None
    sequences: int = 1
    apart: bool = False

    @property
    def segments(self) -> int:
        """Number of parts of ``x`` with separate attention."""
        return self.sequences if self.apart else 1


def _enter_plain(block: nn.Module, x: Tensor) -> BlockInput:
    return BlockInput(x)


def _leave_plain(block: nn.Module, x: Tensor, given: BlockInput) -> Tensor:
    return x


def _identity(block: nn.Module, x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class BlockSpec:
    """One family of pre-norm blocks, as steps that process each token independently.

    The block is ``x = x + finish1(project(attend(qkv(norm1(x)))))`` and then
    ``x = x + finish2(mlp(norm2(x)))``. Every step takes the host's block first and accepts any
    subset of tokens (B, M, C).

    Attributes:
        classes: ``module.Class`` names of the blocks; a subclass matches as long as it keeps the
            named class's ``forward``.
        num_heads: Number of attention heads.
        scale: Factor of the attention logits.
        attn_drop: Current dropout probability of attention weights (0 in evaluation).
        norm1: The first normalisation, a module or another callable.
        qkv: ``(block, h, rope)`` to queries, keys, values, each (B, H, M, D), after the query and
            key norms and the rotation; ``rope`` has only these tokens (or is None).
        project: ``(block, out, h)``: attention output (B, M, H * D) to (B, M, C). ``h`` returns the
            output of ``norm1`` for the same tokens; only gated attention calls it, and it may be
            None for a block that keeps the grid.
        finish1: End of the attention branch: LayerScale, DropPath.
        norm2: The second normalisation.
        mlp: The MLP, or None for a block with only an attention branch; ``leave`` of such a block
            receives the branch and adds it.
        finish2: End of the MLP branch.
        enter: Converts the block's arguments to a :class:`BlockInput`; raises an error for
            unsupported ones.
        leave: ``(block, x, given)``: converts tokens (B, N, C) back to the host's layout.
        window_size: Side of the attention windows in tokens, 0 for global attention. Tokens are
            padded with zeros after ``norm1`` to whole windows.
        padding: ``(block, q)`` to the query, key and value of a padding token, each (1, H, 1, D)
            with the dtype and device of ``q``; None without windows.
        rel_pos: ``(block, grid_size)`` to the decomposed relative positions of a whole window or
            grid: rows (H, H, D) and (W, W, D) of each query and key position, times the unscaled
            query, from :func:`mmvitaccel.core.attention.rel_pos.offset_rows`; or None if the block
            has none.
        keeps_grid: Whether the block must return as many tokens as it received, because the host
            regroups them (windows, frames).
        refuse: Reason why this block is not supported, or None.
        bypassed: Dotted names of submodules that the host calls but these steps do not, or with
            other arguments; hooks on them raise an error.
    """

    classes: tuple[str, ...]
    num_heads: Callable[[nn.Module], int]
    scale: Callable[[nn.Module], float]
    attn_drop: Callable[[nn.Module], float]
    norm1: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    qkv: Callable[[nn.Module, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
    project: Callable[[nn.Module, Tensor, Normed | None], Tensor]
    finish1: Callable[[nn.Module, Tensor], Tensor] = _identity
    norm2: Callable[[nn.Module], Callable[[Tensor], Tensor]] = field(
        default=lambda block: nn.Identity()
    )
    mlp: Callable[[nn.Module, Tensor], Tensor] | None = None
    finish2: Callable[[nn.Module, Tensor], Tensor] = _identity
    enter: Callable[..., BlockInput] = _enter_plain
    leave: Callable[[nn.Module, Tensor, BlockInput], Tensor] = _leave_plain
    window_size: Callable[[nn.Module], int] = field(default=lambda block: 0)
    padding: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    rel_pos: Callable[[nn.Module, Grid], tuple[Tensor, Tensor] | None] = field(
        default=lambda block, grid_size: None
    )
    keeps_grid: bool = False
    refuse: Callable[[nn.Module], str | None] = field(default=lambda block: None)
    bypassed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patches:
    """How a family splits a picture into patches, for motion.

    Attributes:
        size: Side of a patch in pixels; patches are adjacent and start at the top left corner.
        positions: ``(model, grid_size)`` to the position embeddings (1, H * W, C) contained in the
            grid's tokens at the first block, or None.
        refuse: ``(model, grid_size)`` to the reason why motion is not supported, or None; called
            without a grid when a method is attached.
    """

    size: Callable[[nn.Module], int]
    positions: Callable[[nn.Module, Grid], Tensor | None]
    refuse: Callable[[nn.Module, Grid | None], str | None]


@dataclass(frozen=True)
class ViTAdapter:
    """One family of vision transformers.

    Attributes:
        name: Name of the family in messages.
        classes: ``module.Class`` names of the models; subclasses match.
        blocks: The model's blocks in order of execution.
        specs: Supported kinds of blocks.
        prefix: Kinds of the tokens before the patches, in order: ``class``, ``distillation``,
            ``register``. Empty without prefix tokens.
        entries: Methods that call the blocks, each with the indices of the blocks after which the
            method (or its caller) reads all N tokens.
        asked: ``(model, kwargs)`` to the indices of further blocks whose tokens a call of an entry
            reads, by its keyword arguments; raises ValueError for unsupported requests.
        clips: Methods that take all time steps of a batch of clips at once, each with an override
            ``(model, host, *args)`` that passes them to an entry one after the other, for methods
            with state between frames.
        batch_dim: Batch dimension of the entries' inputs and outputs.
        takes_clip: Whether the model processes a whole clip at once, without successive frames.
        patches: The patches, for motion; None if motion is not supported.
        refuse: Reason why this model is not supported, or None.
        also: Names of models of the family, for the documentation.
    """

    name: str
    classes: tuple[str, ...]
    blocks: Callable[[nn.Module], Sequence[nn.Module]]
    specs: tuple[BlockSpec, ...]
    prefix: Callable[[nn.Module], tuple[str, ...]]
    entries: Mapping[str, Callable[[nn.Module], Iterable[int]]]
    asked: Callable[[nn.Module, Mapping[str, Any]], Iterable[int]] = field(
        default=lambda model, kwargs: ()
    )
    clips: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    batch_dim: Callable[[nn.Module], int] = field(default=lambda model: 0)
    takes_clip: bool = False
    patches: Patches | None = None
    refuse: Callable[[nn.Module], str | None] = field(default=lambda model: None)
    also: tuple[str, ...] = ()


def host_class(module: nn.Module) -> type:
    """A module's original class, also with a method attached."""
    return getattr(type(module), "host_class", type(module))


def class_name(module: nn.Module) -> str:
    """A module's original class as ``module.Class``."""
    cls = host_class(module)
    return f"{cls.__module__}.{cls.__qualname__}"


def named_base(module: nn.Module, names: Iterable[str]) -> type | None:
    """The class of a module or its first base class that is in ``names``."""
    wanted = set(names)
    for cls in host_class(module).__mro__:
        if f"{cls.__module__}.{cls.__qualname__}" in wanted:
            return cls
    return None


def spec_of(block: nn.Module, adapter: ViTAdapter) -> BlockSpec:
    """The record for a block.

    Raises:
        ValueError: The block is of an unknown kind, overrides the ``forward`` that the record
            describes, or is refused by its record.
    """
    for spec in adapter.specs:
        base = named_base(block, spec.classes)
        if base is None:
            continue
        name = class_name(block)
        if host_class(block).forward is not base.forward:
            raise ValueError(
                f"{adapter.name}: {name} overrides the forward of {base.__name__}, so its steps "
                f"are unknown; give your own adapter for it."
            )
        reason = spec.refuse(block)
        if reason is not None:
            raise ValueError(f"{adapter.name}: {name} is not supported: {reason}.")
        return spec
    known = sorted(name for spec in adapter.specs for name in spec.classes)
    raise ValueError(
        f"{adapter.name}: blocks of class {class_name(block)} are not supported; supported "
        f"are {', '.join(known)}."
    )
