"""What methods that remember streams have in common: a batch on its way, each frame on its memory.

A method's state derives from :class:`StreamRun`. It says ``begin`` when a batch arrives, reads and
writes ``blocks`` of the streams' states while it is computed, and ``end`` when it is. The batch on
its way belongs to the thread that computes it: others may compute other streams meanwhile.
"""

from __future__ import annotations

import functools
import itertools
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import Override, Swap, attach, link
from mmvitaccel.adapters.base import ViTAdapter, class_name
from mmvitaccel.adapters.bypass import Bypass
from mmvitaccel.adapters.eventful.streams.fingerprint import fingerprint, norms
from mmvitaccel.adapters.eventful.streams.metainfo import FollowMetainfo, objects_of
from mmvitaccel.adapters.parts import HeadAdapter, NeckAdapter
from mmvitaccel.core.eventful.frame import (
    Clips,
    Frame,
    Naming,
    current_frames,
    streams,
    tell,
    told_of,
)
from mmvitaccel.core.eventful.gates.policy import (
    Always,
    Policy,
    TopFraction,
    TopK,
    for_one_frame,
    frames_for_all,
)
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.gates.required import Required
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.eventful.motion.translation import Motion
from mmvitaccel.core.eventful.stream import StreamState, StreamStore, Turn
from mmvitaccel.core.kernels.export import refuse_export, why_not_exported

#: The stream of frames that come without a name, one at a time, in the main thread. Those of every
#: other thread are a stream of their own, with a number behind.
UNNAMED = "unnamed"
_THREAD_NUMBERS = itertools.count(1)
_EVERYTHING = Always()


class Camera(NamedTuple):
    """What is known of the camera in one frame.

    Attributes:
        moved: Pixels of the model's input (down, right) since the frame before.
        offset: The frame's top left corner (y, x) in the scene, in pixels; (0, 0) where the
            scene began, with a clean start or anew.
        fits: Whether the frame shows the scene of the one before; if not it was taken for one of a
            camera that stands still.
        beyond: Pixels by which the frame lies further down and right than the tokens that the
            model gives: (0, 0) where these lie on the frame.
    """

    moved: tuple[int, int]
    offset: tuple[int, int]
    fits: bool
    beyond: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class FrameInfo:
    """One frame of the last call.

    Attributes:
        stream: Its stream; None where it belonged to none and was computed whole.
        frame_id: Its number, if it was given.
        first: Whether the stream started clean with it.
        num_tokens: N.
        passed: For each block, the tokens that passed its gates: of a transformer three (queries,
            keys and values; output projection; MLP), of a neck its one.
        left_out_by_gate: For each block and gate, the squared error of the tokens that did not
            pass over the squared norm of all tokens.
        computed: The share of its work that was done: of a transformer, tokens that passed its
            gates; of a neck or head over maps, numbers of its maps; of a head over proposals,
            proposals. 1 where all was.
        refreshed: Whether it was computed whole although the stream went on.
        camera: Where it lies in its scene; None where no motion is followed.
    """

    stream: Hashable
    frame_id: int | None
    first: bool
    num_tokens: int
    passed: list[tuple[int, ...]]
    left_out_by_gate: list[tuple[float, ...]] = field(default_factory=list)
    computed: float = 1.0
    refreshed: bool = False
    camera: Camera | None = None

    @property
    def left_out(self) -> float:
        """What the frame left out, the mean over gates: 0 if everything that changed passed."""
        gates = [value for block in self.left_out_by_gate for value in block]
        return sum(gates) / len(gates) if gates else 0.0


@dataclass(frozen=True)
class Passed:
    """What passed the gates in one frame.

    Attributes:
        info: The frame; its ``passed`` is empty, for counting may wait for a device.
        blocks: The gates' selections of each block that remembers the stream.
        left_out: What these gates left out, () float32 each.
        owners: For each of these gates the token in which each of the frame's is, (B, N), where
            tokens merge.
        computed: Of a part without gates in every block, what was computed, () float32.
        order: Where tokens lie on a scene, the one nearest to each patch of the frame, (H * W,).
    """

    info: FrameInfo
    blocks: list[tuple[Selection, ...]]
    left_out: list[tuple[Tensor, ...]]
    computed: Tensor | None = None
    owners: list[tuple[Tensor | None, ...] | None] = field(default_factory=list)
    order: Tensor | None = None

    def counted(self) -> FrameInfo:
        """The frame with its counts."""
        counts = [tuple(sum(gate.counts) for gate in block) for block in self.blocks]
        gates = [gate for block in self.left_out for gate in block]
        values = iter(torch.stack(gates).tolist() if gates else ())
        shares = [tuple(next(values) for _ in block) for block in self.left_out]
        computed = self._computed([count for block in counts for count in block])
        return replace(self.info, passed=counts, left_out_by_gate=shares, computed=computed)

    def _computed(self, counts: list[int]) -> float:
        if self.computed is not None:
            return float(self.computed)
        at_most = sum(gate.num_tokens for block in self.blocks for gate in block)
        return sum(counts) / at_most if counts else 1.0

    def tokens(self) -> Tensor:
        """Which tokens passed, (blocks, gates, B, N) bool."""
        if not self.blocks:
            return torch.zeros(0, 3, 1, self.info.num_tokens, dtype=torch.bool)
        masks = [[gate.mask() for gate in block] for block in self.blocks]
        for own, owners in zip(masks, self.owners):
            for place, owner in enumerate(owners or ()):
                if owner is not None:  # a token passed if the one did in which it is
                    own[place] = own[place].gather(1, owner)
        passed = torch.stack([torch.stack(own) for own in masks])
        if self.order is None:
            return passed
        prefix = passed.shape[-1] - len(self.order)
        return torch.cat((passed[..., :prefix], passed[..., prefix + self.order]), -1)


class Root(NamedTuple):
    """What the module that a method is put on knows of itself.

    Attributes:
        bypass: The submodules that the method does not call.
        adapter: Its family.
    """

    bypass: Bypass
    adapter: ViTAdapter | NeckAdapter | HeadAdapter


@dataclass
class Batch:
    """A batch on its way.

    Attributes:
        frames: Whose images it holds.
        states: What is remembered of them, None for a frame of no stream.
        turn: What makes these streams its own.
        policy: As it was when the batch arrived.
        goes_on: Whether the model around has handed on batches before in the same call.
        next_block: The block that it reaches next.
        work: What the part that computes it notes of it.
    """

    frames: tuple[Frame, ...]
    states: list[StreamState | None]
    turn: Turn
    policy: Policy
    goes_on: bool = False
    next_block: int = 0
    work: Any = None

    def policy_of(self, state: StreamState | None) -> Policy:
        """What is let through of a stream's frame."""
        own = None if state is None else state.policy
        return self.policy if own is None else own

    def parts(self, x: Tensor | None) -> list[tuple[StreamState | None, Tensor | None]]:
        """The states, each with its share of ``x`` (B, ...)."""
        if x is None or len(self.states) == 1 or len(x) == 1:
            return [(state, x) for state in self.states]
        return list(zip(self.states, x.split(1)))


class _Call(threading.local):
    """What a thread's call of a model is at."""

    def __init__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.unnamed = UNNAMED if main else f"{UNNAMED} {next(_THREAD_NUMBERS)}"
        self.inside = False
        self.image: tuple[int, ...] | None = None
        self.running: Batch | None = None
        self.frames: list[Passed] | None = None


@dataclass
class StreamRun:
    """What the modules of one attachment share.

    Attributes:
        policy: Says what the gates let through.
        store: The streams.
        clips: Whether the host itself cuts its input into clips, so that callers name no streams.
        latest: The frames of the last batch of any thread, and what passed the gates.
        naming: The threads of the blocks in which somebody names streams.
        call: What this thread is at.
        followed: The models around this one that tell its streams, by their hooks.
        refresh: Says which later frames are computed whole.
        motion: Says where the camera looks; None where it is taken as fixed.
    """

    policy: Policy
    store: StreamStore
    clips: bool = False
    latest: list[Passed] = field(default_factory=list)
    naming: list[threading.Thread] = field(default_factory=list)
    call: _Call = field(default_factory=_Call)
    followed: WeakKeyDictionary[nn.Module, FollowMetainfo] = field(
        default_factory=WeakKeyDictionary
    )
    refresh: Refresh = field(default_factory=OnRequest)
    motion: Motion | None = None

    @property
    def running(self) -> Batch | None:
        """The batch that this thread computes."""
        return self.call.running

    @property
    def frames(self) -> list[Passed]:
        """The frames of this thread's last batch; of a thread that had none, the latest."""
        return self.latest if self.call.frames is None else self.call.frames

    @property
    def is_inside(self) -> bool:
        """Whether this thread's call came by a method of the model that the run overrides."""
        return self.call.inside

    @property
    def is_part_of_a_pass(self) -> bool:
        """Whether this thread's call is nested in another one of which no block runs yet."""
        call = self.call
        return call.inside and (call.running is None or call.running.next_block == 0)

    def run_pass(self, image: tuple[int, ...] | None, run: Callable[[], Any]) -> Any:
        """Run a call that brings a batch; its streams are released when it ends, also by an error.

        A nested call is a part of the outer one, unless blocks are running: then a hook, for
        instance, calls the model a second time, and the outer batch continues afterwards.

        Args:
            image: Shape of the call's input, without the batch.
            run: The call.
        """
        if self.is_part_of_a_pass:
            return run()
        call = self.call
        before = call.inside, call.image, call.running
        call.inside, call.image, call.running = True, image, None
        try:
            return run()
        except BaseException:
            for state in filter(None, call.running.states if call.running else ()):
                state.busy = True  # half of the blocks have seen the frame
            raise
        finally:
            self._free()
            call.inside, call.image, call.running = before

    def _free(self) -> None:
        """This thread's batch is computed, or nobody goes on with it."""
        if self.call.running is not None:
            self.store.end(self.call.running.states, self.call.running.turn)
            self.call.running = None

    @contextmanager
    def named(self, frames: tuple[Frame, ...]) -> Iterator[None]:
        """Say whose frames the calls in a block are given."""
        thread = threading.current_thread()
        self.naming.append(thread)
        try:
            with streams(frames):
                yield
        finally:
            self.naming.remove(thread)

    def begin(
        self, model: nn.Module, x: Tensor, *alike: Hashable, others: Sequence[Tensor] | None = ()
    ) -> None:
        """A batch (B, ...) arrives.

        Args:
            model: Whose weights a stream's memory was made with.
            x: The batch.
            *alike: What else, beside the shape and kind of ``x``, must not change in a stream.
            others: What belongs to the batch beside ``x``. None where another part has looked at
                all of it already.

        Raises:
            ValueError: The streams named around the call do not fit the batch.
            RuntimeError: The model is being traced or exported, a hook would be dropped, another
                call computes one of the streams, or several frames of one stream came past the
                model's forward, which takes them one after the other.
        """
        refuse_export(why_not_exported(link(model).method))
        root: Root = link(model).info
        root.bypass.check()
        self._free()  # a batch that was left half-way
        call = current_frames()
        if not self.is_inside and self.go_in_turn(len(x)):
            raise RuntimeError(
                f"{root.bypass.method}: a batch of {len(x)} holds several frames of one stream and "
                f"came past the forward of {class_name(model)}, which gives them one after the "
                "other; where that was replaced on the instance, let yours call it or restore it "
                "(del model.forward)."
            )
        goes_on = isinstance(call, Clips) and call.started(id(self))
        frames = self._frames_of(call, len(x))
        shape = (len(x) if frames[0].lockstep else 1, *x.shape[1:])
        # reason: what was made in inference mode cannot be changed outside of it.
        how = (x.dtype, x.device, torch.is_inference_mode_enabled())
        signature = (*alike, shape, *how, fingerprint(model))
        turn, policy = Turn(), for_one_frame(self.policy)
        states = self.store.begin(frames, signature, turn, norms(model))
        self.call.running = Batch(frames, states, turn, policy, goes_on)
        for given in () if others is None else (x, *others):
            self.saw(given)

    @torch.no_grad()
    def follow(self, pictures: Tensor, patch_size: int) -> Tensor:
        """Each picture (1, channels, height, width) of a batch in its place in its scene.

        Of a stream that starts clean, and of no stream, it stays as it is.

        Args:
            pictures: (B, channels, height, width), of whole patches.
            patch_size: Pixels a side of a patch.

        Raises:
            ValueError: Several go in lockstep.
        """
        if self.running.frames[0].lockstep and len(pictures) > 1:
            raise ValueError(
                f"Eventful: a batch of {len(pictures)} pictures goes in lockstep, and each would "
                "move by itself; with motion, name a stream for each: handle.stream(['a', 'b'])."
            )
        moved = []
        for frame, (state, picture) in zip(self.running.frames, self.running.parts(pictures)):
            if state is not None and state.scene is None:
                state.scene = Scene(self.motion, picture, patch_size)
            elif state is not None:
                anew = state.whole.requested  # computed whole anyway
                scene = state.scene
                picture = scene.begin_anew(picture) if anew else scene.follow(picture)
                self._say_misfit(frame, state)
            moved.append(picture)
        return moved[0] if len(moved) == 1 else torch.cat(moved)

    def _say_misfit(self, frame: Frame, state: StreamState) -> None:
        if state.scene.fits or state.misfit_said:
            return
        state.misfit_said = True
        number = "" if frame.frame_id is None else f" (frame {frame.frame_id})"
        warnings.warn(
            f"Eventful: a picture of stream {frame.stream!r}{number} is not that of the frame "
            "before moved by some pixels; such frames are taken as those of a camera that stands "
            "still, and handle.frames[i].camera.fits is False. This is said once for a stream.",
            stacklevel=2,
        )

    def given(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) as the model gives them, on the frame or the view."""
        if self.motion is None:
            return x
        parts = [
            part if state is None else state.scene.given(part)
            for state, part in self.running.parts(x)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def decide(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix: int = 0) -> None:
        """Decide what is let through of each frame, and which are refreshed.

        A refresh is told to the parts of a model that come to the same frame later.

        Args:
            x: The frames' tokens (B, N, C) before the first gate.
            grid: (H, W) of those after the prefix; None where nobody knows.
            num_prefix: Tokens before these.
        """
        running = self.running
        spacing = frames_for_all(running.policy, x.shape[1])
        for frame, (state, part) in zip(running.frames, running.parts(x)):
            if state is None:
                continue
            told = told_of(frame)
            # reason: a name may hold for many calls, and what was said in an earlier one is old
            heard = told is not None and told.by != id(self) and told.number != state.heard
            scene = state.scene
            follows = (heard and told.refreshed) or (scene is not None and scene.anew)
            state.refreshed = state.whole.begin(
                self.refresh, state.num_frames == 1, follows, part[:, num_prefix:], spacing
            )
            if heard:
                state.heard, state.place = told.number, told.place
            else:
                tell(frame, id(self), state.refreshed, None if scene is None else scene.place)
            if state.refreshed:
                state.policy = _EVERYTHING
            elif hasattr(running.policy, "of_frame") and state.num_frames > 1:
                # reason: what is known of the last frame lies on that one's patches
                shift = (0, 0) if scene is None else scene.tokens_were_off
                state.policy = running.policy.of_frame(state.matters, grid, num_prefix, shift)
            if scene is not None and not state.refreshed:
                state.policy = _with_entered(scene, running.policy_of(state), part)

    def saw(self, x: Tensor) -> None:
        """Note whether each frame's share of (B, ...) is finite."""
        for state, part in self.running.parts(x):
            if state is not None:
                state.saw(part)

    def end(self, num_tokens: int) -> None:
        """The batch is computed; each of its frames has that many tokens."""
        passed = list(self.frames) if self.running.goes_on else []
        for frame, state in zip(self.running.frames, self.running.states):
            first = state is None or state.num_frames == 1
            blocks = [] if state is None else list(state.blocks.values())
            refreshed = state is not None and state.refreshed
            scene = None if state is None else state.scene
            info = FrameInfo(
                frame.stream, frame.frame_id, first, num_tokens, [], refreshed=refreshed,
                camera=None if scene is None else _camera(scene),
            )  # fmt: skip
            # reason: the selections alone, so that a stream that is dropped frees its memory.
            gated = [block for block in blocks if block.passed]
            seen = [block.passed for block in gated]
            left_out = [block.left_out for block in gated]
            computed = getattr(blocks[0], "computed", None) if blocks else None
            merged = [getattr(block, "merged", None) for block in gated]
            owners = [None if each is None else each.owners() for each in merged]
            order = scene.order(seen[0][0].index.device) if scene is not None and seen else None
            passed.append(Passed(info, seen, left_out, computed, owners, order))
        self.call.frames = self.latest = passed
        self.store.forget_finished(self.running.frames)
        self._free()

    def follow_metainfo(self, model: nn.Module) -> None:
        """Take streams from the data samples that ``model``, around this one, is called with.

        Each clip is a separate stream, whatever its data sample says.
        """
        if not self.clips and model not in self.followed:
            self.followed[model] = FollowMetainfo(self._saw_result).register(model)

    def _saw_result(self, frame: Frame, image: Any) -> None:
        """A model around has found objects in a frame."""
        objects = objects_of(image) if hasattr(self.policy, "of_frame") else None
        if objects is not None:
            self.store.saw_objects(frame.stream, objects)

    def unfollow(self) -> None:
        """Take the hooks off the models around."""
        for hooks in self.followed.values():
            hooks.remove()
        self.followed.clear()

    def go_in_turn(self, size: int) -> bool:
        """Whether a batch of that size holds several frames of one stream."""
        call = current_frames()
        return isinstance(call, Clips) and call.go_in_turn(id(self), size)

    def _frames_of(self, call: Naming | None, batch_size: int) -> tuple[Frame, ...]:
        """The frames named around a call, for a batch of that size."""
        if call is None:
            if batch_size > 1:
                raise ValueError(
                    f"Eventful: a batch of {batch_size} frames came without stream ids; name the "
                    "streams, `with handle.stream(['a', 'b', ...]):`, or in a config put "
                    "'video_id' in the meta_keys."
                )
            self._check_nobody_named_it()
            return (Frame(self.call.unnamed),)
        if isinstance(call, Clips):
            return call.take(id(self), batch_size)
        lockstep = len(call) == 1 and call[0].lockstep
        if len(call) != batch_size and not lockstep:
            raise ValueError(
                f"Eventful: {len(call)} streams were named for a batch of {batch_size} frames; "
                "name one for each."
            )
        return call

    def _check_nobody_named_it(self) -> None:
        """Refuse a frame without a name while another thread or task names streams."""
        if any(thread.is_alive() for thread in self.naming):
            raise RuntimeError(
                "Eventful: a frame without a stream came in thread "
                f"{threading.current_thread().name!r} while `with handle.stream(...)` is open in "
                "another; its name holds in its own thread and task alone (asyncio.to_thread "
                "takes it along, run_in_executor does not), so name the stream where the model "
                "is called."
            )


def _camera(scene: Scene) -> Camera:
    return Camera(scene.moved, scene.offset, scene.fits, scene.beyond)


def _with_entered(scene: Scene, policy: Policy, x: Tensor) -> Policy:
    """A policy for the tokens (1, N, C), of which those pass that came into view."""
    if type(policy) in (TopK, TopFraction):
        num_tokens = x.shape[1]
        policy = TopK(scene.budget(policy.most(num_tokens), num_tokens))
    entered = scene.entered(x.device)
    if entered is None:
        return policy
    prefix = entered.new_zeros(x.shape[1] - len(entered))
    return Required(policy, torch.cat((prefix, entered)), scene.ring.count_entered(scene.before))


def in_turn(
    run: Callable[..., Any], size: int, dim: int, args: tuple, kwargs: dict[str, Any]
) -> Any:
    """Call ``run`` for each image of a batch by itself, and put the results together.

    Args:
        run: Called with each image's part of the arguments.
        size: Images in the batch.
        dim: Where tensors, also in nested lists, tuples and dicts, have the batch.
        args: Positional arguments of the whole batch.
        kwargs: The others.
    """
    outs = []
    for place in range(size):
        part = functools.partial(_part, place=place, size=size, dim=dim)
        own = {name: part(value) for name, value in kwargs.items()}
        outs.append(run(*map(part, args), **own))
    return _together(outs, dim)


def _part(value: Any, place: int, size: int, dim: int) -> Any:
    if isinstance(value, Tensor):
        batched = value.dim() > dim and value.shape[dim] == size
        return value.narrow(dim, place, 1) if batched else value
    if type(value) in (list, tuple):
        return type(value)(_part(item, place, size, dim) for item in value)
    return value


def _together(outs: list[Any], dim: int) -> Any:
    first = outs[0]
    if isinstance(first, Tensor):
        return torch.cat(outs, dim) if first.dim() > dim else first
    if type(first) in (list, tuple):
        return type(first)(_together(list(parts), dim) for parts in zip(*outs))
    if isinstance(first, dict):
        whole = {name: _together([out[name] for out in outs], dim) for name in first}
        # reason: transformers' outputs are dataclasses and dicts at once
        return type(first)(**whole) if is_dataclass(first) else whole
    return first


def train(model: nn.Module, host: Any, mode: bool = True) -> nn.Module:
    """The override of ``train``: what was remembered in another mode is forgotten."""
    if mode != model.training:
        link(model).state.store.drop()
    return host(mode)


def called(part: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a call, of a part whose whole forward is the method's.

    Raises:
        RuntimeError: The part's forward was replaced on the instance, so that the method would be
            off.
    """
    if "forward" in part.__dict__ and not part.training:
        link(part).info.bypass.check()
    return host(*args, **kwargs)


def attach_run(root: nn.Module, method: str, swaps: list[Swap], state: StreamRun) -> None:
    """Put a method that remembers streams on a module, in place of itself if it is there already.

    Args:
        root: The module.
        method: Name of the method.
        swaps: What changes, the root's part first.
        state: What its parts share.
    """
    before = link(root, method)
    attach(root, method, swaps, state)
    if before is not None:
        warnings.warn(
            f"{method} was on this {class_name(root)} with {before.state.policy!r} and is "
            f"replaced by {state.policy!r}.",
            stacklevel=3,
        )
        before.state.unfollow()


def attach_part(
    module: nn.Module,
    method: str,
    overrides: Mapping[str, Override],
    state: StreamRun,
    bypassed: Iterable[str],
    adapter: Any,
    swaps: Sequence[Swap] = (),
) -> None:
    """Put a method that remembers streams on a neck or a head, and on modules within it.

    Args:
        module: A neck or a head.
        method: Name of the method.
        overrides: As in :class:`~mmvitaccel.adapters.attach.Swap`.
        state: What is remembered.
        bypassed: Dotted names of the submodules that are not called.
        adapter: The module's record.
        swaps: Of modules within it.
    """
    bypass = Bypass(method, module, [(module, bypassed)], _itself, gradients=False)
    bypass.check()
    swap = Swap(module, {**overrides, "train": train}, Root(bypass, adapter))
    attach_run(module, method, [swap, *swaps], state)


def _itself(module: nn.Module) -> list[nn.Module]:
    return [module]
