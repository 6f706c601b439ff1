"""Eventful Transformers (Dutson et al., ICCV 2023) around a transformer of an OpenMMLab config."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import Registry
from torch import nn

from mmvitaccel.adapters.eventful.apply import apply_eventful, checked_refresh, make_attention
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.adapters.eventful.parts import check_group_norm
from mmvitaccel.adapters.eventful.scene import checked_motion
from mmvitaccel.adapters.given import check_adapter
from mmvitaccel.arguments import config, known_names, sequence, text, whole_number
from mmvitaccel.core.eventful.gates.importance import (
    Importance,
    LastObjects,
    ReceivedAttention,
    RunningObjects,
)
from mmvitaccel.core.eventful.gates.policy import Always, Policy, Threshold, TopFraction, TopK
from mmvitaccel.core.eventful.gates.random_tokens import RandomTokens
from mmvitaccel.core.eventful.gates.refresh import Every, OnChange, OnRequest, Refresh
from mmvitaccel.core.eventful.gates.shared import SharedTopK
from mmvitaccel.core.eventful.gates.weighted import Weighted
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.eventful.modes.mode import AttentionMode
from mmvitaccel.core.eventful.modes.running_sums import Guard
from mmvitaccel.core.eventful.motion.translation import Motion, Translation
from mmvitaccel.core.eventful.options import EventfulOptions, buffer_dtype_of
from mmvitaccel.models.wrappers.target import find_target, unwrapped
from mmvitaccel.registry import IMPORTANCES, MODELS, MOTIONS, POLICIES, REFRESHES

for _policy in (TopK, TopFraction, Threshold, Always, RandomTokens, SharedTopK, Weighted):
    POLICIES.register_module(module=_policy)
for _importance in (LastObjects, ReceivedAttention, RunningObjects):
    IMPORTANCES.register_module(module=_importance)
for _refresh in (OnChange, Every, OnRequest):
    REFRESHES.register_module(module=_refresh)
MOTIONS.register_module(module=Translation)


@MODELS.register_module()
def Eventful(
    policy: dict | Policy,
    attention: str | dict | AttentionMode = "exact",
    backbone: dict | None = None,
    neck: dict | None = None,
    target: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone (or neck) that recomputes only what changed since the previous frame.

    Returns the inner module itself, so parameter names, checkpoints, layer decay and
    ``custom_keys`` are the same as without Eventful. The model that contains it provides the video
    of each image from the metainfo of its data samples.

    Args:
        policy: Selects the tokens that pass the gates: config of one of ``TopK``, ``TopFraction``,
            ``Threshold``, ``Always``, ``Weighted`` or of your own class, or the object.
        attention: ``exact``, ``tokenwise``, ``delta``, or ``dict(type='exact', ...)`` with the
            arguments of the mode.
        backbone: Config of the transformer, or of a module that contains one.
        neck: The same for a transformer neck; give one of the two.
        target: Path of the transformer in the inner module, if there are several.
        **options: Further arguments of :func:`mmvitaccel.apply_eventful`; ``refresh`` as config of
            one of ``OnChange``, ``Every``, ``OnRequest`` or of your own class, or as the object;
            ``motion`` in the same way as that of ``Translation``.

    Raises:
        ValueError: Not exactly one of ``backbone`` and ``neck`` is given, there is no supported
            transformer, or an argument is invalid.

    Example:
        >>> cfg = dict(
        ...     type='mmvitaccel.Eventful',
        ...     policy=dict(type='TopK', k=512),
        ...     attention='exact',
        ...     backbone=dict(type='mmvitaccel.ViTDet'),
        ... )
    """
    given = {
        name: config("Eventful", name, cfg)
        for name, cfg in dict(backbone=backbone, neck=neck).items()
        if cfg is not None
    }
    target = text("Eventful", "target", target, what="a module's path", or_none=True)
    if len(given) != 1:
        raise ValueError(
            f"Eventful wraps one module, but got {' and '.join(given) or 'neither'} of backbone="
            "dict(type=...) and neck=dict(type=...): give one."
        )
    if "parts" in options:
        raise ValueError(
            f"Eventful: parts={options['parts']!r} applies to a whole detector, but this wraps "
            f"its {next(iter(given))}; remove the wrapper and set custom_hooks="
            "[dict(type='mmvitaccel.EventfulHook', policy=..., parts=...)]."
        )
    module = MODELS.build(*given.values())
    _, transformer = find_target(module, target)
    apply_eventful(transformer, build_policy(policy), build_attention(attention), **_built(options))
    return module


def attach_eventful(
    model: nn.Module,
    policy: dict | Policy,
    attention: str | dict | AttentionMode = "exact",
    target: str | None = None,
    parts: str | Sequence[str] | None = None,
    **options: Any,
) -> tuple[str, EventfulHandle | EventfulDetectorHandle]:
    """Make a built model eventful.

    Args:
        model: A detector or another model, also inside a distributed wrapper or one for test-time
            augmentation.
        policy: See :func:`Eventful`.
        attention: See :func:`Eventful`.
        target: Path of the transformer or of a module that contains it; by default it is searched
            in the backbone, then in the neck.
        parts: ``all`` or the names of parts of a detector. The policy may then be a dict with a
            policy for each part.
        **options: See :func:`Eventful`.

    Returns:
        The path of the transformer, empty with ``parts``, and the handle.

    Raises:
        ValueError: Both ``target`` and ``parts`` are given, a part is not supported, there is no
            supported transformer, or an argument is invalid.
    """
    target = text("Eventful", "target", target, what="a module's path", or_none=True)
    refuse_both(target, parts)
    # The detector itself gets the data samples; a wrapper calls it once for each view
    model = unwrapped(model)
    if parts is not None:
        if isinstance(policy, dict) and "type" not in policy:
            policies = {part: build_policy(own) for part, own in policy.items()}
        else:
            policies = build_policy(policy)
        return "", apply_eventful(
            model, policies, build_attention(attention), parts=parts, **_built(options)
        )
    path, transformer = find_target(model, target)
    handle = apply_eventful(
        transformer, build_policy(policy), build_attention(attention), **_built(options)
    )
    if model is not transformer:
        handle.follow_metainfo(model)
    return path, handle


def refuse_both(target: str | None, parts: str | Sequence[str] | None) -> None:
    """Refuse ``target`` together with ``parts``.

    Raises:
        ValueError: Both are given.
    """
    if target is not None and parts is not None:
        raise ValueError(
            f"Eventful: target={target!r} and parts={parts!r} are both given, but a target is one "
            f"transformer and parts are those of the whole detector; give one of the two."
        )


def check_eventful_options(
    attention: str | dict | AttentionMode,
    parts: str | Sequence[str] | None,
    options: Mapping[str, Any],
) -> None:
    """Check further arguments of :func:`mmvitaccel.apply_eventful` before there is a model.

    Args:
        attention: See :func:`Eventful`.
        parts: See :func:`attach_eventful`.
        options: The further arguments.

    Raises:
        ValueError: One is unknown or has no meaning.
        TypeError: The refresh or the motion lacks a method.
    """
    known = inspect.signature(apply_eventful).parameters
    defaults = {name: p.default for name, p in known.items() if p.kind is p.KEYWORD_ONLY}
    defaults.pop("parts")
    known_names("Eventful", options, defaults)
    given = {**defaults, **_built(dict(options))}
    whole_number("Eventful", "max_streams", given.pop("max_streams"), least=1)
    check_group_norm(given.pop("group_norm"), parts)
    check_adapter("Eventful", given.pop("adapter"))
    checked_refresh(given.pop("refresh"))
    motion = given.pop("motion")
    if motion is not None:
        checked_motion(motion)
    kept_as = buffer_dtype_of(given.pop("buffer_dtype"))
    EventfulOptions(build_attention(attention), **given, buffer_dtype=kept_as)


def build_policy(policy: dict | Policy) -> Policy:
    """Build a policy from its config; an object is returned unchanged.

    Raises:
        ValueError: The config has no type, or its type is not registered.
    """
    if not isinstance(policy, dict):
        return policy
    cfg = dict(policy)
    if _class(POLICIES, cfg) is Weighted:
        if "base" in cfg:
            cfg["base"] = build_policy(cfg["base"])
        if "importance" in cfg:
            several = sequence("Weighted", "importance", cfg["importance"])
            cfg["importance"] = [build_importance(entry) for entry in several]
    return _build(POLICIES, "policy", cfg)


def build_importance(importance: dict | Importance) -> Importance:
    """Build an importance from its config; an object is returned unchanged.

    Raises:
        ValueError: The config has no type, or its type is not registered.
    """
    return _build(IMPORTANCES, "importance", importance)


def build_refresh(refresh: dict | Refresh) -> Refresh:
    """Build a refresh from its config; an object is returned unchanged.

    Raises:
        ValueError: The config has no type, or its type is not registered.
    """
    return _build(REFRESHES, "refresh", refresh)


def build_motion(motion: dict | Motion | None) -> Motion | None:
    """Build a motion from its config; an object or None is returned unchanged.

    Raises:
        ValueError: The config has no type, or its type is not registered.
    """
    return _build(MOTIONS, "motion", motion)


def _build(registry: Registry, what: str, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    cls = _class(registry, given)
    if not callable(cls):
        raise ValueError(
            f"Eventful: {what}={dict(given)!r} has no registered type; known are "
            f"{', '.join(sorted(registry.module_dict))}."
        )
    return cls(**{key: value for key, value in given.items() if key != "type"})


def _class(registry: Registry, cfg: dict) -> type | None:
    # Looked up directly, because building would search the scope of the config first
    name = cfg.get("type")
    return registry.get(name) if isinstance(name, str) else name


def _built(options: dict[str, Any]) -> dict[str, Any]:
    """Build the configs among the options of :func:`~mmvitaccel.apply_eventful`."""
    build = dict(refresh=build_refresh, motion=build_motion)
    return {name: build[name](own) if name in build else own for name, own in options.items()}


def build_attention(attention: str | dict | AttentionMode) -> AttentionMode:
    """Build an attention mode from its name or config; an object is returned unchanged.

    Raises:
        ValueError: The name is unknown, or the mode does not accept the arguments.
    """
    if not isinstance(attention, dict):
        return make_attention(attention)
    cfg = copy.deepcopy(dict(attention))
    name = cfg.pop("type", None)
    if name != "exact":
        if name is None or cfg:
            raise ValueError(
                f"Eventful: attention={dict(attention)!r} must have a type, and arguments only "
                f"with type='exact'."
            )
        return make_attention(name)
    guard = config("ExactAttention", "guard", cfg.pop("guard", None), what="a dict", or_none=True)
    return ExactAttention(None if guard is None else Guard(**guard), **cfg)
