"""Strict loading of weights into a backbone or a whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

Hint = Callable[[Mapping[str, Tensor]], "str | None"]

ANOTHER_MODEL = "it belongs to another model; give the right checkpoint or correct the config"


def load_fitting(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    name: str = "",
    may_lack: Sequence[str] = (),
    hint: Hint = lambda weights: None,
) -> list[str]:
    """Load weights that must have every parameter and buffer of a model with its shape.

    OpenMMLab's loaders only warn about mismatches and leave these parameters random; this function
    raises an error. Additional names outside the model's top-level modules, such as those of a
    removed head, are allowed.

    Args:
        model: The model, which may resize weights in ``_load_from_state_dict``. After an error,
            some weights may already be loaded.
        weights: Weights with the model's names.
        source: Name of the file for messages.
        name: Name of the model for messages; its class by default.
        may_lack: Parts of names that may be missing completely; these parameters keep their values.
        hint: Function from mismatched weights to an explanation with advice, or None.

    Returns:
        The entries of ``may_lack`` that are missing.

    Raises:
        ValueError: The weights do not match; the message names the first mismatch.
    """
    name = name or type(model).__name__
    needed = [key for key in model.state_dict() if not is_derived(key)]
    if not set(needed) & weights.keys():
        advice = hint(weights) or f"it {_first(weights)}; {ANOTHER_MODEL}"
        raise ValueError(f"{source}: it has no weights of {name}, {advice}.")
    _refuse_other_numbers(model, weights, source)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    try:
        found = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        what = _mismatch(shapes, weights, name, error)
        raise ValueError(f"{source}: {hint(weights) or what}.") from error
    absent = [part for part in may_lack if not any(part in key for key in weights)]
    missing = [
        key
        for key in found.missing_keys
        if not is_derived(key) and not any(part in key for part in absent)
    ]
    parts = {key.partition(".")[0] for key in shapes}
    surplus = [
        key
        for key in found.unexpected_keys
        if key.partition(".")[0] in parts and not is_derived(key)
    ]
    if missing or surplus:
        what = (
            f"it lacks {len(missing)} of the {len(needed)} tensors of {name}, first '{missing[0]}'"
            if missing
            else f"{len(surplus)} of its tensors are not in {name}, first '{surplus[0]}'"
        )
        raise ValueError(f"{source}: {hint(weights) or f'{what}; {ANOTHER_MODEL}'}.")
    return absent


def _refuse_other_numbers(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse integers and complex numbers in the place of real ones, which torch would round.

    Raises:
        ValueError: There are some.
    """
    for key, own in model.named_parameters():
        found = weights.get(key)
        if found is None or not own.is_floating_point() or found.is_floating_point():
            continue
        raise ValueError(
            f"{source}: '{key}' is {str(found.dtype).removeprefix('torch.')} in it and "
            f"{str(own.dtype).removeprefix('torch.')} in the model: these are no plain weights but "
            "quantized or transformed ones; give the checkpoint from before that."
        )


def is_derived(key: str) -> bool:
    """Whether a tensor is not a weight but an index or a number of batches."""
    return key.endswith(("attention_bias_idxs", "num_batches_tracked"))


def _first(weights: Mapping[str, Tensor]) -> str:
    return f"has {next(iter(weights))!r} as its first name" if weights else "is empty"


def _mismatch(
    shapes: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, Tensor],
    name: str,
    error: RuntimeError,
) -> str:
    """Describe the first weight with a wrong shape that could not be resized."""
    message = " ".join(str(error).split())
    for key, shape in shapes.items():
        # torch only reports those that still differ after the model has resized weights
        if key in weights and tuple(weights[key].shape) != shape and f" {key}:" in message:
            return (
                f"'{key}' is {tuple(weights[key].shape)} in it and {shape} in {name}; give a "
                "checkpoint of this model or correct the config"
            )
    return message.rstrip(".")
