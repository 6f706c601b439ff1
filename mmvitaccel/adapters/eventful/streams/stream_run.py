"""What methods that remember streams have in common: a batch on its way, each frame on its memory.

A method's state derives from :class:`StreamRun`. It says ``begin`` when a batch arrives, reads and
writes ``blocks`` of the streams' states while it is computed, and ``end`` when it is. The batch on
its way belongs to the thread that computes it: others may compute other streams meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import ViTAdapter, class_name
from mmvitaccel.adapters.bypass import Bypass
from mmvitaccel.adapters.eventful.streams.batch import Batch, Call
from mmvitaccel.adapters.eventful.streams.fingerprint import fingerprint, norms
from mmvitaccel.adapters.eventful.streams.frame_info import Passed, passed_in
from mmvitaccel.adapters.eventful.streams.metainfo import FollowMetainfo, objects_of
from mmvitaccel.adapters.eventful.streams.naming import Names
from mmvitaccel.adapters.parts import HeadAdapter, NeckAdapter
from mmvitaccel.core.eventful.frame import Clips, Frame, current_frames, tell, told_of
from mmvitaccel.core.eventful.gates.policy import (
    Always,
    Policy,
    for_one_frame,
    frames_for_all,
    most_of,
)
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.gates.required import Required
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.eventful.motion.translation import Motion
from mmvitaccel.core.eventful.store import StreamStore
from mmvitaccel.core.eventful.stream import Turn
from mmvitaccel.core.kernels.export import refuse_export, why_not_exported
from mmvitaccel.core.torch_modes import is_compiling, is_transforming

_EVERYTHING = Always()
#: Said of a neck or head behind a backbone that follows its camera by itself.
INTERPOLATED = (
    "Eventful: the backbone follows its camera (motion) and interpolates its maps back to the "
    "frame (maps='frame'), so that a neck or head behind it would find every cell changed; let all "
    "parts follow, apply_eventful(detector, policy, parts='all', motion=...), or leave one of the "
    "two out."
)


class Root(NamedTuple):
    """What the module that a method is put on knows of itself.

    Attributes:
        bypass: The submodules that the method does not call.
        adapter: Its family.
    """

    bypass: Bypass
    adapter: ViTAdapter | NeckAdapter | HeadAdapter


@dataclass
class StreamRun:
    """What the modules of one attachment share.

    Attributes:
        policy: Says what the gates let through.
        store: The streams.
        clips: Whether the host itself cuts its input into clips, so that callers name no streams.
        latest: The frames of the last batch of any thread, and what passed the gates.
        names: Who names the streams of its calls.
        call: What this thread is at.
        followed: The models around this one that tell its streams, by their hooks.
        refresh: Says which later frames are computed whole.
        motion: Says where the camera looks; None where it is taken as fixed.
        converts: Whether linear layers run in half precision in the faster way.
    """

    policy: Policy
    store: StreamStore
    clips: bool = False
    latest: list[Passed] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    call: Call = field(default_factory=Call)
    followed: WeakKeyDictionary[nn.Module, FollowMetainfo] = field(
        default_factory=WeakKeyDictionary
    )
    refresh: Refresh = field(default_factory=OnRequest)
    motion: Motion | None = None
    converts: bool = False

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
            self.free()
            call.inside, call.image, call.running = before

    def free(self) -> None:
        """End this thread's batch: it is computed, or nobody goes on with it."""
        if self.call.running is not None:
            self.store.end(self.call.running.states, self.call.running.turn)
            self.call.running = None

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
            RuntimeError: The model is being traced or exported, a transform of torch.func runs,
                the batch has no values, a hook would be dropped, another call computes one of the
                streams, or several frames of one stream came past the model's forward, which takes
                them one after the other.
        """
        refuse_export(why_not_exported(link(model).method))
        root: Root = link(model).info
        _refuse_transforms(root.bypass.method, x)
        root.bypass.check()
        self.free()  # a batch that was left half-way
        call = current_frames()
        if not self.is_inside and self.go_in_turn(len(x)):
            raise RuntimeError(
                f"{root.bypass.method}: a batch of {len(x)} holds several frames of one stream and "
                f"came past the forward of {class_name(model)}, which gives them one after the "
                "other; where that was replaced on the instance, let yours call it or restore it "
                "(del model.forward)."
            )
        goes_on = isinstance(call, Clips) and call.started(id(self))
        frames = self.names.frames_of(id(self), self.call.unnamed, len(x))
        shape = (len(x) if frames[0].lockstep else 1, *x.shape[1:])
        # What was made in inference mode cannot be changed outside of it.
        how = (x.dtype, x.device, torch.is_inference_mode_enabled())
        signature = (*alike, shape, *how, fingerprint(model))
        turn, policy = Turn(), for_one_frame(self.policy)
        states = self.store.begin(frames, signature, turn, norms(model))
        self.call.running = Batch(frames, states, turn, policy, goes_on)
        for given in () if others is None else (x, *others):
            self.saw(given)

    @torch.no_grad()
    def decide(self, x: Tensor, grid: tuple[int, int] | None = None, num_prefix: int = 0) -> None:
        """Decide what is let through of each frame, and which are refreshed.

        A refresh is told to the parts of a model that come to the same frame later.

        Args:
            x: The frames' tokens (B, N, C) before the first gate.
            grid: (H, W) of those after the prefix; None where nobody knows.
            num_prefix: Tokens before these.

        Raises:
            RuntimeError: An earlier part follows its camera by itself.
        """
        running = self.running
        spacing = frames_for_all(running.policy, x.shape[1])
        for frame, (state, part) in zip(running.frames, running.parts(x)):
            if state is None:
                continue
            told = told_of(frame)
            # A name may hold for many calls, and what was said in an earlier one is old
            heard = told is not None and told.by != id(self) and told.number != state.heard
            if heard and told.interpolated:
                raise RuntimeError(INTERPOLATED)
            scene = state.scene
            follows = (heard and told.refreshed) or (scene is not None and scene.anew)
            state.refreshed = state.whole.begin(
                self.refresh, state.num_frames == 1, follows, part[:, num_prefix:], spacing
            )
            if heard:
                state.heard, state.place = told.number, told.place
            else:
                place = None if scene is None else scene.place
                interpolated = scene is not None and place is None
                tell(frame, id(self), state.refreshed, place, interpolated)
            if state.refreshed:
                state.policy = _EVERYTHING
            elif hasattr(running.policy, "of_frame") and state.num_frames > 1:
                # What is known of the last frame lies on that one's patches
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
        passed += [
            passed_in(frame, state, num_tokens)
            for frame, state in zip(self.running.frames, self.running.states)
        ]
        self.call.frames = self.latest = passed
        self.store.forget_finished(self.running.frames)
        self.free()

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


def _refuse_transforms(method: str, x: Tensor) -> None:
    """Refuse batches whose values cannot be compared with those of earlier frames.

    Raises:
        RuntimeError: A transform of torch.func runs, or the batch has no values.
    """
    if is_compiling():
        return
    if is_transforming():
        raise RuntimeError(
            f"{method}: the model is called within a transform of torch.func (vmap, grad, jvp), "
            "which cannot follow what is stored of earlier frames; remove the method "
            "(handle.remove()), or call the model outside."
        )
    if x.is_meta or type(x).__name__ == "FakeTensor":
        raise RuntimeError(
            f"{method}: the model is called with {'meta' if x.is_meta else 'fake'} tensors, which "
            "have no values to compare with those of earlier frames; remove the method "
            "(handle.remove()), or give tensors with values."
        )


def _with_entered(scene: Scene, policy: Policy, x: Tensor) -> Policy:
    """A policy for the tokens (1, N, C), of which those pass that came into view."""
    num_tokens = x.shape[1]
    if hasattr(policy, "with_budget"):
        budget = scene.budget(most_of(policy, num_tokens), num_tokens)
        policy = policy.with_budget(budget, num_tokens)
    entered = scene.entered(x.device)
    if entered is None:
        return policy
    prefix = entered.new_zeros(num_tokens - len(entered))
    return Required(policy, torch.cat((prefix, entered)), scene.ring.count_entered(scene.before))
