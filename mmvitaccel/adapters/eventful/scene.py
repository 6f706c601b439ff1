"""A transformer with motion: pictures and tokens are placed in their scenes."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import ViTAdapter, class_name
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.adapters.given import check_object
from mmvitaccel.core.eventful.block import move_block
from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.eventful.motion.translation import Motion, OnView
from mmvitaccel.core.eventful.stream import StreamState
from mmvitaccel.core.torch_modes import autocast_dtype


def checked_motion(motion: Motion) -> Motion:
    """Check a motion.

    Raises:
        TypeError: It has no methods ``start`` and ``follow``.
    """
    give = "Translation(), an object with both, or None"
    check_object("Eventful", "motion", motion, ("start", "follow"), give)
    return motion


def check_motion(motion: Motion, model: nn.Module, adapter: ViTAdapter, kv_pool_size: int) -> None:
    """Refuse invalid motions, and models that do not support motion.

    Raises:
        TypeError: The motion has no methods ``start`` and ``follow``.
        ValueError: The model does not support motion.
    """
    motion = motion.base if isinstance(motion, OnView) else checked_motion(motion)
    if adapter.patches is None:
        reason = f"{adapter.name} is not among the models that support motion"
    elif kv_pool_size > 1:
        reason = f"kv_pool_size={kv_pool_size} averages keys over squares that a moving view cuts"
    else:
        reason = adapter.patches.refuse(model, None)
    if reason is not None:
        raise ValueError(
            f"Eventful: motion={motion!r} is not supported by this {class_name(model)}: "
            f"{reason}; leave motion out."
        )


def refuse_inner(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a method that reads tokens of inner blocks, which are on the scene."""
    if model.training:
        return host(*args, **kwargs)
    raise ValueError(
        f"Eventful: this method of {class_name(model)} reads tokens of inner blocks, which are "
        f"on the scene and not on the frame; read those of the last block with forward or "
        f"forward_features, or leave motion out."
    )


def on_scene(model: nn.Module, host: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A call of the model in which each picture is in its place in its stream's scene."""
    given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    moved = _moved(link(model).state, model, given)
    args = tuple(moved if value is given else value for value in args)
    return host(*args, **{n: moved if value is given else value for n, value in kwargs.items()})


@torch.no_grad()
def _moved(state: StreamRun, model: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures that arrive, in their places; what is remembered of their streams follows."""
    adapter, (height, width) = link(model).info.adapter, pictures.shape[-2:]
    side = adapter.patches.size(model)
    if height % side or width % side:
        raise ValueError(
            f"Eventful: motion needs pictures whose size is a multiple of the patch size, but "
            f"{height} x {width} pixels are not a multiple of {side}; resize or pad them."
        )
    reason = adapter.patches.refuse(model, (height // side, width // side))
    if reason is not None:
        raise ValueError(
            f"Eventful: motion does not support pictures of {height} x {width} pixels on "
            f"{class_name(model)}: {reason}; leave motion out."
        )
    # Tokens, which would tell, are not there yet
    state.begin(model, pictures, state.call.image, autocast_dtype(pictures.device.type))
    moved = _follow(state, pictures, side)
    prefix = len(adapter.prefix(model))
    for stream in filter(None, state.running.states):
        if stream.scene.ring != stream.scene.before:
            for memory in stream.blocks.values():
                move_block(memory, stream.scene, prefix)
    return moved


def _follow(state: StreamRun, pictures: Tensor, patch_size: int) -> Tensor:
    """Each picture (1, channels, height, width) of a batch in its place in its scene.

    Of a stream that starts clean, and of no stream, it stays as it is.

    Args:
        state: What the model and its blocks share.
        pictures: (B, channels, height, width), of whole patches.
        patch_size: Pixels a side of a patch.

    Raises:
        ValueError: Several go in lockstep.
    """
    batch = state.running
    if batch.frames[0].lockstep and len(pictures) > 1:
        raise ValueError(
            f"Eventful: a batch of {len(pictures)} pictures goes in lockstep, but each needs its "
            f"own motion; with motion, name a stream for each: handle.stream(['a', 'b'])."
        )
    moved = []
    for frame, (stream, picture) in zip(batch.frames, batch.parts(pictures)):
        if stream is not None and stream.scene is None:
            stream.scene = Scene(state.motion, picture, patch_size)
        elif stream is not None:
            anew = stream.whole.requested  # computed whole anyway
            scene = stream.scene
            picture = scene.begin_anew(picture) if anew else scene.follow(picture)
            _say_misfit(frame, stream)
        moved.append(picture)
    return moved[0] if len(moved) == 1 else torch.cat(moved)


def _say_misfit(frame: Frame, stream: StreamState) -> None:
    if stream.scene.fits or stream.misfit_said:
        return
    stream.misfit_said = True
    number = "" if frame.frame_id is None else f" (frame {frame.frame_id})"
    warnings.warn(
        f"Eventful: a picture of stream {frame.stream!r}{number} is not that of the frame "
        "before moved by some pixels (a zoom, a turn, near and far things or another scene); such "
        "frames are taken as those of a camera that stands still, and handle.frames[i].camera.fits "
        "is False. This is said once for a stream.",
        stacklevel=2,
    )


def place_tokens(state: StreamRun, model: nn.Module, x: Tensor) -> Tensor:
    """Tokens that reach the first block, each with the position of its place in the scene."""
    patches, parts = link(model).info.adapter.patches, state.running.parts(x)
    placed = [
        part
        if stream is None
        else stream.scene.corrected(
            part, functools.partial(patches.positions, model, stream.scene.ring.size)
        )
        for stream, part in parts
    ]
    return placed[0] if len(placed) == 1 else torch.cat(placed)


def tokens_given(state: StreamRun, x: Tensor) -> Tensor:
    """Tokens (B, N, C) as the model gives them, on the frame or the view."""
    parts = [
        part if stream is None else stream.scene.given(part)
        for stream, part in state.running.parts(x)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
