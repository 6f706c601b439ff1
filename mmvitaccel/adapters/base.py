"""What a method has to know about its host: records of functions, one table row per family.

A host is another package's vision transformer. Its adapter says where its blocks are and how one
block is taken apart; every function receives the host's own module and calls its submodules, so
that nothing of the host is copied here and a record may be shared by all models of a family.

Shapes: B batch (of images, windows or frames, as the block sees them), N tokens, M any subset of
them, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

Grid = tuple  # (H, W) in tokens, or (T, H, W) for a clip
Normed = Callable[[], Tensor]  # computes norm1's output when it is asked


class BlockInput(NamedTuple):
    """The arguments of one call of a block, as the methods need them.

    Attributes:
        x: Tokens (B, N, C), in the host's order.
        rope: Rotary table (1 or B, 1 or H, N, 2 * D), sines beside cosines, that holds the
            identity (0 and 1) for prefix tokens, or None.
        grid_size: (H, W) of the tokens after the prefix, or None where the host does not say.
        extra: What :attr:`BlockSpec.leave` needs to restore the host's own layout.
        sequences: As many sequences of equal length, each with the prefix in front, lie behind each
            other in ``x``. More than one is served in a block that keeps the grid.
        apart: Whether each of them attends within itself, not over all.
    """

    x: Tensor
    rope: Tensor | None = None
    grid_size: Grid | None = None
    extra: Any = None
    sequences: int = 1
    apart: bool = False

    @property
    def segments(self) -> int:
        """Into how many parts, which attend within themselves, ``x`` is cut."""
        return self.sequences if self.apart else 1


def _enter_plain(block: nn.Module, x: Tensor) -> BlockInput:
    return BlockInput(x)


def _leave_plain(block: nn.Module, x: Tensor, given: BlockInput) -> Tensor:
    return x


def _identity(block: nn.Module, x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class BlockSpec:
    """One family of pre-norm blocks, taken apart into steps that act on each token alone.

    The block is ``x = x + finish1(project(attend(qkv(norm1(x)))))`` and then
    ``x = x + finish2(mlp(norm2(x)))``. Every step takes the host's block first and accepts any
    subset of tokens (B, M, C).

    Attributes:
        classes: ``module.Class`` names of the blocks; a subclass matches as long as it keeps the
            named class's ``forward``.
        num_heads: Number of attention heads.
        scale: Factor of the attention logits.
        attn_drop: Probability of dropping an attention weight now (0 in evaluation).
        norm1: The block's first normalisation, a module or any other callable.
        qkv: ``(block, h, rope)`` to queries, keys, values, each (B, H, M, D), after the query and
            key norms and the rotation; ``rope`` covers just these tokens (or is None).
        project: ``(block, out, h)``: attention's output (B, M, H * D) to (B, M, C); ``h``, which
            gives the output of ``norm1`` for the same tokens, is asked by gated attention only
            and may be None for a block that keeps the grid.
        finish1: End of the attention branch before it is added: LayerScale, DropPath.
        norm2: The second one.
        mlp: The MLP, or None for a block that is an attention branch alone; ``leave`` of such a
            block receives the branch and adds it itself.
        finish2: End of the MLP's branch.
        enter: The block's arguments to a :class:`BlockInput`; raises for those not supported.
        leave: ``(block, x, given)``: tokens (B, N, C) back to the host's layout.
        window_size: Side of the attention windows in tokens, 0 for global attention. Tokens are
            padded after ``norm1`` with zeros to whole windows.
        padding: ``(block, q)`` to the query, key and value, each (1, H, 1, D) in the kind of ``q``,
            of a token of padding; None where the block has no windows.
        rel_pos: ``(block, grid_size)`` to the decomposed relative positions of a whole window or
            grid: rows (H, H, D) and (W, W, D) of each query and key position, times the unscaled
            query, as :func:`mmvitaccel.core.attention.rel_pos.offset_rows` gives them; or None
            where the block has none.
        keeps_grid: The host regroups its tokens around the block (windows, frames), so that it
            must give back as many tokens as it got.
        refuse: A reason why this very block cannot be taken apart, or None.
        bypassed: Submodules, by dotted name, that the host calls and these steps do not, or not
            with the host's arguments: hooks on them are refused.
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
    """How a family cuts a picture into patches, for methods that move them with the scene.

    Attributes:
        size: Pixels a side of a patch; patches lie beside each other from the top left corner.
        positions: ``(model, grid_size)`` to the absolute positions (1, H * W, C) that the tokens
            of the grid hold when they reach the first block, or None.
        refuse: ``(model, grid_size)`` to the reason why the patches of this model cannot be moved,
            or None; asked without a grid when a method is put on.
    """

    size: Callable[[nn.Module], int]
    positions: Callable[[nn.Module, Grid], Tensor | None]
    refuse: Callable[[nn.Module, Grid | None], str | None]


@dataclass(frozen=True)
class ViTAdapter:
    """One family of vision transformers.

    Attributes:
        name: What messages call the family.
        classes: ``module.Class`` names of the models; subclasses match.
        blocks: The model's blocks, in the order in which tokens pass them.
        specs: The kinds of blocks that the family may hold.
        prefix: What the tokens before the patches are, in order: ``class``, ``distillation``,
            ``register``. Empty where patches come first.
        entries: The methods by which tokens enter the blocks, each with the indices of the blocks
            behind which the method (or its caller) reads the tokens and expects all N of them.
        asked: ``(model, kwargs)`` to the indices of further blocks behind which one call of an
            entry, by its named arguments, reads the tokens; raises ValueError for a call that asks
            for what the methods do not make.
        clips: Methods that take all time steps of a batch of clips at once, each with an override
            ``(model, host, *args)`` that gives them to an entry one after the other, for a method
            that remembers frames.
        batch_dim: Where the entries' tensors, given and returned, have the batch.
        takes_clip: A whole clip goes through at once, so there are no frames to keep state over.
        patches: How pictures become tokens; None where tokens cannot be moved with the scene.
        refuse: The reason why this model is not supported, or None.
        also: By which names users know models of the family, for the list in the documentation.
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
    """A module's own class, also while a method is on it."""
    return getattr(type(module), "host_class", type(module))


def class_name(module: nn.Module) -> str:
    """A module's own class as ``module.Class``."""
    cls = host_class(module)
    return f"{cls.__module__}.{cls.__qualname__}"


def named_base(module: nn.Module, names: Iterable[str]) -> type | None:
    """The class among a module's ancestors (its own included) that one of ``names`` names."""
    wanted = set(names)
    for cls in host_class(module).__mro__:
        if f"{cls.__module__}.{cls.__qualname__}" in wanted:
            return cls
    return None


def spec_of(block: nn.Module, adapter: ViTAdapter) -> BlockSpec:
    """The record that takes this block apart.

    Raises:
        ValueError: If the block is of no kind that the adapter knows, overrides the ``forward``
            that the record stands for, or is refused by its record.
    """
    for spec in adapter.specs:
        base = named_base(block, spec.classes)
        if base is None:
            continue
        name = class_name(block)
        if host_class(block).forward is not base.forward:
            raise ValueError(
                f"{adapter.name}: {name} overrides the forward of {base.__name__}, so its steps "
                "are not known; give an adapter of your own for it."
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
